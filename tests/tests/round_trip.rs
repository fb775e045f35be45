//! Dump and undump of each subject: it finds itself as it was, and so does who looks from outside.

use tests::{Lab, trial};

/// A subject goes through dump and undump, three times over: what a restore leaves behind must be
/// as savable as the original.
fn three_times(lab: &Lab, file: &str, args: &[&str]) {
    let program = lab.start_subject(file, args);
    for round in 0..3 {
        lab.round_trip(&program, &format!("images{round}"));
    }
    program.check();
}

trial!(threads, 300, |lab| three_times(lab, "threads.c", &[]));
trial!(amx, 300, |lab| three_times(lab, "amx.c", &[]));
trial!(attributes, 300, |lab| three_times(lab, "attributes.c", &[]));
trial!(timeouts, 300, |lab| three_times(lab, "timeouts.c", &["0"]));
trial!(pending, 300, |lab| three_times(lab, "pending.c", &[]));
trial!(memory, 300, |lab| three_times(lab, "memory.c", &["64"]));
trial!(huge, 300, |lab| three_times(lab, "huge.c", &[]));
trial!(some_processes, 300, |lab| three_times(lab, "many_processes.c", &["30"]));
trial!(some_areas, 300, |lab| three_times(lab, "many_areas.c", &["500"]));
trial!(some_descriptors, 300, |lab| three_times(lab, "many_descriptors.c", &["300"]));

trial!(areas, 300, |lab| three_times(lab, "areas.c", &[]));
trial!(tree, 300, |lab| three_times(lab, "tree.c", &[]));
trial!(leaderless, 300, |lab| three_times(lab, "leaderless.c", &[]));
trial!(pipe, 300, |lab| three_times(lab, "pipe.c", &[]));
trial!(fifo, 300, |lab| three_times(lab, "fifo.c", &[]));
trial!(file, 300, |lab| three_times(lab, "file.c", &[]));
trial!(directory, 300, |lab| three_times(lab, "directory.c", &[]));
trial!(place, 300, |lab| three_times(lab, "place.c", &[]));
trial!(proc_file, 300, |lab| three_times(lab, "proc_file.c", &[]));
trial!(kernel_file, 300, |lab| three_times(lab, "kernel_file.c", &[]));
trial!(streams, 300, |lab| three_times(lab, "streams.c", &[]));
trial!(device, 300, |lab| three_times(lab, "device.c", &[]));
trial!(eventfd, 300, |lab| three_times(lab, "eventfd.c", &[]));
trial!(epoll, 300, |lab| three_times(lab, "epoll.c", &[]));
trial!(timerfd, 300, |lab| three_times(lab, "timerfd.c", &[]));
trial!(signalfd, 300, |lab| three_times(lab, "signalfd.c", &[]));
trial!(memfd, 300, |lab| three_times(lab, "memfd.c", &[]));
trial!(unix_pair, 300, |lab| three_times(lab, "unix_pair.c", &[]));
trial!(sockets, 300, |lab| three_times(lab, "sockets.c", &[]));
trial!(terminal, 300, |lab| three_times(lab, "terminal.c", &[]));

trial!(leaving_it_running, 300, |lab| {
    let program = lab.start_subject("threads.c", &[]);
    let pid = program.pid().to_string();
    for round in 0..3 {
        let images = format!("images{round}");
        lab.snapd().call(&["dump", "--leave-running", "--pid", &pid, "--images", &images]).ok();
    }
    program.kill();
    lab.undump(&program, "images2");
    program.check();
});
