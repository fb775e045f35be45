//! Scale: a thousand threads, five hundred processes, twenty thousand areas, ten thousand descriptors,
//! gigabytes of memory with little of our own. Alone on the machine, so that times mean something.

use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use tests::{Lab, full, trial};

/// No checkpointer may hold more, whatever the program's size.
const OUR_MEMORY_KIB: i64 = 256 << 10;

fn there_and_back(lab: &Lab, file: &str, args: &[&str], limit: Duration) {
    let program = lab.start_subject(file, args);
    let (dumped, undumped) = (lab.dump(&program, "images"), lab.undump(&program, "images"));
    program.check();
    println!("{file} {args:?}: dump {:?}, undump {:?}", dumped.took, undumped.took);
    assert!(dumped.took < limit && undumped.took < limit, "{:?}, {:?}", dumped.took, undumped.took);
}

trial!(alone a_thousand_threads, 120, |lab| {
    there_and_back(lab, "many_threads.c", &["1000"], Duration::from_secs(10));
});
trial!(alone five_hundred_processes, 120, |lab| {
    there_and_back(lab, "many_processes.c", &["500"], Duration::from_secs(20));
});
trial!(alone twenty_thousand_areas, 120, |lab| {
    there_and_back(lab, "many_areas.c", &["20000"], Duration::from_secs(20));
});
trial!(alone ten_thousand_descriptors, 120, |lab| {
    there_and_back(lab, "many_descriptors.c", &["10000"], Duration::from_secs(20));
});

trial!(
    /// The peak of dump is measured by wait4(2): nobody else among our children uses memory before it ends.
    alone gigabytes_of_memory, 300, |lab| {
    let mebibytes = if full() { "4096" } else { "1024" };
    let free = nix::sys::statfs::statfs(Path::new("/tmp")).unwrap();
    let free = free.blocks_available() * u64::try_from(free.block_size()).unwrap();
    assert!(free > 8 << 30, "/tmp has no room for the images");
    let program = lab.start_subject("memory.c", &[mebibytes]);
    let pid = program.pid().to_string();
    let snapd = lab.snapd().within(120);
    snapd.call(&["dump", "--leave-running", "--pid", &pid, "--images", "images"]).ok();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    assert!(peak < OUR_MEMORY_KIB, "dump held {} MiB", peak >> 10);
    program.kill();
    snapd.call(&["undump", "--images", "images", "--detach"]).ok();
    program.check();
});
