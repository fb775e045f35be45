// cc: gcc -O1 -g -Wall -pthread
// Has one thing that cannot be saved, by the name of its first argument, and is unharmed by the attempt.
#include "subject.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/syscall.h>

static _Atomic int confined;
static volatile char selector;

// Calls that snapd would make in it end it.
static void *sleep_confined(void *nothing) {
    int allowed[] = {SYS_nanosleep, SYS_clock_nanosleep, SYS_restart_syscall};
    struct sock_filter filter[6] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < 3; i++)
        filter[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 3 - i, 0);
    filter[4] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[5] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {6, filter};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
    confined = 1;
    for (;;) sleep_ms(1);
    return nothing;
}

static void on_sigsys(int signal) {
    (void)signal;
    selector = SYSCALL_DISPATCH_FILTER_ALLOW;
    confined++;
}

static _Atomic int apart;

static void *sleep_apart(void *nothing) {
    MUST(unshare(CLONE_FILES) == 0);
    apart++;
    for (;;) pause();
    return nothing;
}

static void child_of_a_namespace(void) {
    MUST(unshare(CLONE_NEWPID) == 0);
    if (fork() == 0) {
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
}

int main(int argc, char **argv) {
    MUST(argc == 2);
    const char *what = argv[1];
    int set = -1, queue = -1, leased = -1, key = -1;
    if (!strcmp(what, "thread")) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, sleep_confined, NULL) == 0);
        while (!confined) sleep_ms(1);
    } else if (!strcmp(what, "apart")) {
        pthread_t thread;
        MUST(pthread_create(&thread, NULL, sleep_apart, NULL) == 0);
        while (!apart) sleep_ms(1);
    } else if (!strcmp(what, "namespace")) {
        child_of_a_namespace();
    } else if (!strcmp(what, "empty_namespace")) {
        MUST(unshare(CLONE_NEWPID) == 0);
    } else if (!strcmp(what, "dispatch")) {
        signal(SIGSYS, on_sigsys);
        MUST(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) == 0);
    } else if (!strcmp(what, "segments")) {
        unsigned entry[4] = {1, 0x1000, 0xfff, 0x51};
        MUST(syscall(SYS_modify_ldt, 1, entry, sizeof entry) == 0);
    } else if (!strcmp(what, "watch")) {
        MUST(fcntl(open(".", O_RDONLY), F_NOTIFY, DN_CREATE) == 0);
        signal(SIGIO, SIG_IGN);
    } else if (!strcmp(what, "lease")) {
        signal(SIGIO, SIG_IGN);
        leased = open("leased", O_RDWR | O_CREAT, 0600);
        MUST(fcntl(leased, F_SETLEASE, F_WRLCK) == 0);
    } else if (!strcmp(what, "semaphores")) {
        struct sembuf up = {0, 5, SEM_UNDO};
        MUST((set = semget(IPC_PRIVATE, 1, 0600)) >= 0 && semop(set, &up, 1) == 0);
    } else if (!strcmp(what, "messages")) {
        MUST((queue = msgget(IPC_PRIVATE, 0600)) >= 0);
    } else if (!strcmp(what, "keys")) {
        key = syscall(SYS_add_key, "user", "snapd", "secret", 6, -2); // KEY_SPEC_PROCESS_KEYRING
        MUST(key > 0);
    } else if (!strcmp(what, "signals")) {
        sigset_t usr1;
        sigemptyset(&usr1);
        sigaddset(&usr1, SIGUSR1);
        MUST(sigprocmask(SIG_BLOCK, &usr1, NULL) == 0 && kill(getpid(), SIGUSR1) == 0);
        MUST(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){0, 0}) == 0);
    } else {
        fail("%s is not known", what);
    }
    until_told();
    if (!strcmp(what, "dispatch")) {
        selector = SYSCALL_DISPATCH_FILTER_BLOCK;
        getppid();
        MUST(confined == 1);
    }
    char secret[6];
    MUST(key < 0 || (syscall(SYS_keyctl, 11, key, secret, 6) == 6 && !memcmp(secret, "secret", 6))); // KEYCTL_READ
    MUST(leased < 0 || fcntl(leased, F_GETLEASE) == F_WRLCK);
    MUST(set < 0 || (semctl(set, 0, GETVAL) == 5 && semctl(set, 0, IPC_RMID) == 0));
    MUST(queue < 0 || msgctl(queue, IPC_RMID, NULL) == 0);
    return ok();
}
