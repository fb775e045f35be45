// cc: gcc -O1 -g -Wall
// A tree with a zombie of known status and limits, stopped children (of one nobody was told), one that goes on after a stop (which nobody
// was told either), a session and a group of their own, an orphan
// under a subreaper, copy-on-write memory shared by parent and child, and what of it goes into core files.
#include "subject.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void sleep_for_ever(void) {
    for (;;) pause();
}

static const char *core_filter = "/proc/self/coredump_filter";

int main(void) {
    char filter[20] = "";
    int file = open(core_filter, O_WRONLY);
    MUST(file >= 0 && write(file, "0x17", 4) == 4 && close(file) == 0);
    MUST(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    char *shared = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *private = malloc(1 << 20);
    memset(private, 'p', 1 << 20);
    int zombie = fork(), ends[2], status;
    if (zombie == 0) {
        struct rlimit files;
        MUST(getrlimit(RLIMIT_NOFILE, &files) == 0);
        files.rlim_cur = 77;
        MUST(setrlimit(RLIMIT_NOFILE, &files) == 0);
        _exit(33);
    }
    MUST(pipe(ends) == 0);
    int stopped = fork();
    if (stopped == 0) {
        raise(SIGSTOP);
        _exit(private[5] == 'p' ? 44 : 1);
    }
    MUST(waitpid(stopped, &status, WUNTRACED) == stopped && WIFSTOPPED(status));
    siginfo_t news;
    int untold = fork();
    if (untold == 0) {
        raise(SIGSTOP);
        _exit(55);
    }
    MUST(waitid(P_PID, untold, &news, WSTOPPED | WNOWAIT) == 0);
    int goes_on = fork();
    if (goes_on == 0) sleep_for_ever();
    MUST(kill(goes_on, SIGSTOP) == 0 && waitpid(goes_on, &status, WUNTRACED) == goes_on && WIFSTOPPED(status));
    MUST(kill(goes_on, SIGCONT) == 0 && waitid(P_PID, goes_on, &news, WCONTINUED | WNOWAIT) == 0);
    int leader = fork();
    if (leader == 0) {
        signal(SIGTERM, SIG_DFL);
        setsid();
        prctl(PR_SET_PDEATHSIG, SIGHUP);
        prctl(PR_SET_NAME, "the leader");
        setpriority(PRIO_PROCESS, 0, 5);
        shared[77] = 's';
        int grandchild = fork();
        if (grandchild == 0) {
            setpgid(0, 0);
            MUST(write(ends[1], "r", 1) == 1);
            sleep_for_ever();
        }
        MUST(write(ends[1], &grandchild, sizeof grandchild) == sizeof grandchild);
        sleep_for_ever();
    }
    int middle = fork(), orphan = 0;
    if (middle == 0) {
        int child = fork();
        if (child == 0) {
            signal(SIGTERM, SIG_DFL);
            sleep_for_ever();
        }
        shared[0] = 1;
        *(int *)(shared + 4) = child;
        _exit(0);
    }
    MUST(waitpid(middle, &status, 0) == middle && shared[0] == 1);
    orphan = *(int *)(shared + 4);
    char said[5];
    for (int got = 0; got < 5;) got += read(ends[0], said + got, 5 - got);
    siginfo_t info;
    MUST(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0);
    until_told();
    MUST((file = open(core_filter, O_RDONLY)) >= 0 && read(file, filter, 9) == 9 && !strcmp(filter, "00000017\n") && close(file) == 0);
    MUST(getsid(leader) == leader && getpgid(leader) == leader && getpriority(PRIO_PROCESS, leader) == 5);
    MUST(shared[77] == 's' && private[1 << 19] == 'p');
    MUST(waitpid(zombie, &status, 0) == zombie && WEXITSTATUS(status) == 33);
    MUST(waitid(P_PID, stopped, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0);
    MUST(waitpid(untold, &status, WUNTRACED | WNOHANG) == untold && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    MUST(waitpid(goes_on, &status, WCONTINUED | WNOHANG) == goes_on && WIFCONTINUED(status));
    MUST(waitpid(goes_on, &status, WCONTINUED | WUNTRACED | WNOHANG) == 0);
    MUST(kill(goes_on, SIGKILL) == 0 && waitpid(goes_on, &status, 0) == goes_on);
    MUST(kill(untold, SIGCONT) == 0 && waitpid(untold, &status, 0) == untold && status == 55 << 8);
    MUST(kill(stopped, SIGCONT) == 0 && waitpid(stopped, &status, 0) == stopped && status == 44 << 8);
    MUST(kill(orphan, SIGTERM) == 0 && waitpid(orphan, &status, 0) == orphan && status == SIGTERM);
    MUST(kill(leader, SIGTERM) == 0 && waitpid(leader, &status, 0) == leader && status == SIGTERM);
    // The grandchild is ours now: we are its subreaper.
    int last = waitpid(-1, &status, WNOHANG);
    MUST(last == 0 && kill(-1, 0) == 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    FILE *children = fopen(path, "r");
    MUST(children && fscanf(children, "%d", &last) == 1);
    MUST(getpgid(last) == last && getsid(last) == leader && kill(last, SIGKILL) == 0 && waitpid(last, &status, 0) == last);
    return ok();
}
