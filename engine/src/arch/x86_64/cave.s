# The code that runs inside a borrowed thread. It is copied, context filled in, into the zero bytes
# behind the vdso's image (a loan), or into an area of its own (a blank), and is never run in place.
#
# The law: whenever the tracer vanishes, whoever runs here goes on, finds nothing to do, and takes the
# way home (`leave`), which ends with the registers, flags and signal mask of before. So every marker
# is a signal that means nothing to a program that is not traced.
#
#   rbx  the address of the area if it was mapped here and has to go, else anything else
#   r12  the control block at the start of an area (remote/area.rs has the layout)
#   r13  requests left            r14  the present one
#   rsp  the program's own; nothing is ever pushed
.pushsection .rodata.snapd_cave, "a", @progbits
.balign 16
.hidden snapd_cave
.globl snapd_cave
snapd_cave:
    .ascii "snapd cave v1\n\0\0"                # by this the next tracer knows it
    .quad snapd_cave_end - snapd_cave           # and how far it reaches

.hidden snapd_cave_enter
.globl snapd_cave_enter
snapd_cave_enter:                               # a loan begins here, with the program's registers
    mov eax, {RT_SIGPROCMASK}
    mov edi, {SIG_SETMASK}
    lea rsi, [rip + context_blocked]
    xor edx, edx
    mov r10d, {SIGSET_BYTES}
    syscall
    mov eax, {MMAP}
    mov rdi, [rip + context_area]
    mov rsi, [rip + context_area_bytes]
    mov edx, {PROT_READ_WRITE}
    mov r10d, {MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE}
    mov r8, -1
    xor r9d, r9d
    syscall
    mov rbx, rax
    mov r12, rdi
    cmp rax, rdi
    je tell                                     # an area starts as zeros: no requests
    xor r12d, r12d                              # no area: tell, then leave
    jmp tell

.hidden snapd_cave_agent
.globl snapd_cave_agent
snapd_cave_agent:                               # performs the requests of control block r12
agent:
    mov r13, [r12 + {CONTROL_COUNT}]
    lea r14, [r12 + {CONTROL_REQUESTS}]
next_request:
    test r13, r13
    jz batch_done
    mov rax, [r14 + {REQUEST_NUMBER}]
    mov rdi, [r14 + {REQUEST_ARGS}]
    mov rsi, [r14 + {REQUEST_ARGS} + 8]
    mov rdx, [r14 + {REQUEST_ARGS} + 16]
    mov r10, [r14 + {REQUEST_ARGS} + 24]
    mov r8,  [r14 + {REQUEST_ARGS} + 32]
    mov r9,  [r14 + {REQUEST_ARGS} + 40]
    syscall
    test byte ptr [r14 + {REQUEST_FLAGS}], {FLAG_CHILD}
    jz store_result
    test rax, rax
    jnz store_result
    mov r12, [r14 + {REQUEST_CHILD}]            # the child of a clone: to its own control block
    jmp agent
store_result:
    mov [r14 + {REQUEST_RESULT}], rax
    mov rcx, [r14 + {REQUEST_STORE}]
    test rcx, rcx
    jz skip_store
    mov [rcx], rax                              # e.g. into an argument of a later request
skip_store:
    add r14, {REQUEST_BYTES}
    dec r13
    jmp next_request
batch_done:
    mov qword ptr [r12 + {CONTROL_COUNT}], 0
tell:
    mov eax, {GETPID}
    syscall
    mov edi, eax
    mov eax, {GETTID}
    syscall
.hidden snapd_cave_told
.globl snapd_cave_told
snapd_cave_told:                                # where a tracer that follows system calls looks
    mov esi, eax
    mov edx, [rip + context_marker]
    test edx, edx
    jz told
    mov eax, {TGKILL}
    syscall                                     # the marker: under a tracer, the thread stops here
told:
    test r12, r12
    jz leave
    cmp qword ptr [r12 + {CONTROL_COUNT}], 0
    jne agent
    jmp leave

.hidden snapd_cave_finish
.globl snapd_cave_finish
snapd_cave_finish:                              # a loan ends: the area goes, then tell, then leave
    mov eax, {MUNMAP}
    mov rdi, [rip + context_area]
    mov rsi, [rip + context_area_bytes]
    syscall
    mov rbx, rax                                # 0: nothing left to unmap
    xor r12d, r12d
    jmp tell

.hidden snapd_cave_leave
.globl snapd_cave_leave
snapd_cave_leave:                               # the way home
leave:
    mov rdi, [rip + context_area]
    cmp rdi, rbx
    jne restore
    mov rsi, [rip + context_area_bytes]
    mov eax, {MUNMAP}
    syscall
restore:
    lea rsp, [rip + context_flags]
    popfq                                       # from here on nothing may touch the flags
    mov rsp, [rip + context_rsp]
    mov eax, {RT_SIGPROCMASK}
    mov edi, {SIG_SETMASK}
    lea rsi, [rip + context_mask]
    mov edx, 0                                  # not xor: the flags
    mov r10d, {SIGSET_BYTES}
    syscall
    mov r15, [rip + context_general]
    mov r14, [rip + context_general + 8]
    mov r13, [rip + context_general + 16]
    mov r12, [rip + context_general + 24]
    mov rbp, [rip + context_general + 32]
    mov rbx, [rip + context_general + 40]
    mov r11, [rip + context_general + 48]
    mov r10, [rip + context_general + 56]
    mov r9,  [rip + context_general + 64]
    mov r8,  [rip + context_general + 72]
    mov rax, [rip + context_general + 80]
    mov rcx, [rip + context_general + 88]
    mov rdx, [rip + context_general + 96]
    mov rsi, [rip + context_general + 104]
    mov rdi, [rip + context_general + 112]
    jmp qword ptr [rip + context_rip]

.balign 8
.hidden snapd_cave_context
.globl snapd_cave_context
snapd_cave_context:                             # in the order of `Context`
context_general:    .fill 15, 8, 0              # r15 .. rdi, as in struct user_regs_struct
context_rip:        .quad 0
context_rsp:        .quad 0
context_flags:      .quad 0
context_mask:       .quad 0                     # the program's own signal mask
context_blocked:    .quad 0                     # what is blocked meanwhile: all but the marker
context_area:       .quad 0
context_area_bytes: .quad 0
context_marker:     .quad 0                     # a signal; 0: the tracer follows system calls
.hidden snapd_cave_end
.globl snapd_cave_end
snapd_cave_end:
.popsection
