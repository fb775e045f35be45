//! The loop that a blank process runs: it waits in a block of shared memory for calls, makes them,
//! and says so. Its last task is the gate, where all threads of a tree wait for the release.
//!
//! It uses no stack and no thread pointer, so that it outlives the unmapping of everything else. It
//! ends by itself when the coordinator is gone: a blank left alone would hold its number for ever.
//! Kernel: futex(2), clone3(2), `rt_sigreturn(2)`. Deliberately absent: decisions.
//!
//! In a block, `rbx` is its address, `r14` the call at hand, `r13` how many are left.
use std::arch::{asm, global_asm};
use std::mem::offset_of;

use nix::errno::Errno;
use nix::libc;

/// Set in [`Slot::flags`] of a call that clones: the child goes on in its own block, whose address
/// is its stack pointer.
pub(crate) const CLONES: u64 = 1;
/// Instead of a call's number: copies `args[2]` bytes from `args[1]` to `args[0]`.
#[allow(dead_code, reason = "half of what the assembler knows")]
pub(crate) const COPY: i64 = -1;
/// Instead of a call's number: makes the thread's tile registers its own (`LDTILECFG`, `TILEZERO`)
/// with the configuration at `args[0]`; needs permission (`ARCH_REQ_XCOMP_PERM`).
pub(crate) const TILES: i64 = -2;
/// Instead of a call's number, the last of its batch: on to the gate. `args[0]` is the address of
/// the common word, `args[1]` the stack pointer at which `rt_sigreturn(2)` finds the thread's frame.
pub(crate) const GATE: i64 = -3;

/// [`Block::state`]: nothing to do, or all done.
pub(crate) const IDLE: u32 = 0;
/// [`Block::state`]: calls are waiting to be made.
pub(crate) const POSTED: u32 = 1;

/// The word at the gate: wait.
pub(crate) const SHUT: u32 = 0;
/// The word at the gate: everybody goes.
pub(crate) const OPEN: u32 = 1;
/// The word at the gate: nobody goes; all end.
#[allow(dead_code, reason = "written by the assembler")]
pub(crate) const GIVEN_UP: u32 = 2;

/// How often two seconds pass at the gate before nobody goes, even if the coordinator seems to live: who was
/// killed and is not waited for seems to.
const PATIENCE: u32 = 15;

/// Behind the word at the gate: how many processes are stopped, and their numbers. They do not see that
/// nobody goes; who does ends them.
pub(crate) const STOPPED: usize = 4;

/// How a block of shared memory begins; the slots of a batch follow.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Block {
    /// [`IDLE`] or [`POSTED`]: a futex.
    pub(crate) state: u32,
    /// Who posts: without it, the blank ends.
    pub(crate) owner: i32,
    /// How many slots are filled.
    pub(crate) count: u64,
}

/// One call of a batch.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// Its number, or one of the tasks above.
    pub(crate) number: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
    /// What it returned.
    pub(crate) result: i64,
    /// [`CLONES`] or none.
    pub(crate) flags: u64,
}

const _: () = assert!(size_of::<Block>() == 16 && size_of::<Slot>() == 72);

global_asm!(
    r#"
    .pushsection .rodata.snapd_blank, "a"
    .balign 16
    .globl snapd_blank_start
snapd_blank_start:
    mov dword ptr [rbx], 0
    mov rdi, rbx
    mov esi, 1
    mov edx, 1
    mov eax, 202
    syscall
20: cmp dword ptr [rbx], 1
    je 30f
    mov rdi, rbx
    xor esi, esi
    xor edx, edx
    lea r10, [rip + 90f]
    mov eax, 202
    syscall
    cmp eax, -110
    jne 20b
    mov edi, [rbx + {owner}]
    xor esi, esi
    mov eax, 62
    syscall
    cmp eax, -3
    jne 20b
25: mov edi, 1
    mov eax, 231
    syscall
30: mov r13, [rbx + {count}]
    lea r14, [rbx + {slots}]
31: test r13, r13
    jz snapd_blank_start
    mov rax, [r14]
    mov rdi, [r14 + 8]
    mov rsi, [r14 + 16]
    mov rdx, [r14 + 24]
    mov r10, [r14 + 32]
    mov r8,  [r14 + 40]
    mov r9,  [r14 + 48]
    test rax, rax
    js 40f
    syscall
    mov [r14 + {result}], rax
    test byte ptr [r14 + {flags}], 1
    jz 33f
    test rax, rax
    jnz 33f
    mov rbx, rsp
    jmp snapd_blank_start
33: add r14, {slot}
    dec r13
    jmp 31b
40: cmp rax, -1
    jne 41f
    mov rcx, rdx
    cld
    rep movsb
    mov qword ptr [r14 + {result}], 0
    jmp 33b
41: cmp rax, -2
    jne 50f
    .byte 0xc4, 0xe2, 0x78, 0x49, 0x07
    .byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0
    mov qword ptr [r14 + {result}], 0
    jmp 33b
50: mov r12, rdi
    mov r15, rsi
    mov qword ptr [r14 + {result}], 0
    mov dword ptr [rbx], 0
    mov rdi, rbx
    mov esi, 1
    mov edx, 1
    mov eax, 202
    syscall
    mov r14d, {patience}
51: mov eax, [r12]
    cmp eax, 1
    je 60f
    cmp eax, 2
    je 55f
    mov rdi, r12
    xor esi, esi
    xor edx, edx
    lea r10, [rip + 91f]
    mov eax, 202
    syscall
    cmp eax, -110
    jne 51b
    mov edi, [rbx + {owner}]
    xor esi, esi
    mov eax, 62
    syscall
    cmp eax, -3
    je 52f
    dec r14d
    jnz 51b
52: xor eax, eax
    mov ecx, 2
    lock cmpxchg dword ptr [r12], ecx
    jmp 51b
55: mov r13d, [r12 + {stopped}]
    lea r14, [r12 + {stopped} + 4]
56: test r13d, r13d
    jz 25b
    mov edi, [r14]
    mov esi, 9
    mov eax, 62
    syscall
    add r14, 4
    dec r13d
    jmp 56b
60: mov rsp, r15
    mov eax, 15
    syscall
    .balign 8
90: .quad 0, 500000000
91: .quad 2, 0
    .globl snapd_blank_end
snapd_blank_end:
    .popsection
    "#,
    owner = const offset_of!(Block, owner),
    count = const offset_of!(Block, count),
    slots = const size_of::<Block>(),
    result = const offset_of!(Slot, result),
    flags = const offset_of!(Slot, flags),
    slot = const size_of::<Slot>(),
    stopped = const STOPPED,
    patience = const PATIENCE,
);

unsafe extern "C" {
    static snapd_blank_start: u8;
    static snapd_blank_end: u8;
}

/// The loop's code. It may be copied anywhere.
pub(crate) fn code() -> &'static [u8] {
    let start = &raw const snapd_blank_start;
    let len = (&raw const snapd_blank_end).addr() - start.addr();
    // SAFETY: both symbols are in one section of ours, the second behind the first; the bytes
    // between them are constant and live as long as the program.
    unsafe { std::slice::from_raw_parts(start, len) }
}

/// `struct clone_args` (`include/uapi/linux/sched.h`, up to `set_tid_size`: 80 bytes, since 5.5).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 80);

/// Clones ourselves; the child goes on in the loop at `code`, with its block at `block`. It never
/// runs any of our code, so nothing of ours (locks, threads, buffers) matters to it.
pub(crate) fn clone_into(args: &CloneArgs, code: u64, block: u64) -> nix::Result<i32> {
    let mut result = libc::SYS_clone3;
    // SAFETY: the caller's `code` is a copy of `code()` mapped executable at that address, and
    // `block` a zeroed block in shared memory: both are made by one constructor, in `sys::area`.
    // `args` asks for no CLONE_VM, so the child has its own copy of this stack, and leaves it.
    // In the parent only rax, rcx and r11 change; in the child nothing here ever returns.
    unsafe {
        asm!(
            "xchg rbx, r8",
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "jmp r9",
            "2:",
            "xchg rbx, r8",
            // By name: of any registers, `code` might be given rbx, which is the block by then.
            inout("r8") block => _,
            in("r9") code,
            inlateout("rax") result,
            in("rdi") std::ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    i32::try_from(result)
        .map_err(|_| Errno::EINVAL)
        .and_then(|pid| if pid < 0 { Err(Errno::from_raw(-pid)) } else { Ok(pid) })
}
