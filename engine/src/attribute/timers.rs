//! Timers of a process: the three of setitimer(2), and those of `timer_create(2)`.
pub(super) mod interval;
pub(super) mod posix;
