use policies::backoff::Limit;
use policies::restart::Restart;

use super::*;

fn machine(every_ms: u64, line: &[u64]) -> Machine {
    let options = Options {
        every: (every_ms > 0).then(|| Duration::from_millis(every_ms)),
        restart: Restart::OnFailure,
        limit: Limit::default(),
        keep_last: 10,
        copy_of: None,
    };
    Machine::new(options, line.to_vec(), Recovery::default())
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn exited(status: i32) -> Event {
    Event::Ended(Ended { status, signal: 0 })
}

fn killed(signal: i32) -> Event {
    Event::Ended(Ended { status: 0, signal })
}

/// The actions less what is only told.
fn doing(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|one| !matches!(one, Action::Record { .. })).collect()
}

fn running(every_ms: u64, line: &[u64]) -> Machine {
    let mut it = machine(every_ms, line);
    assert_eq!(
        doing(it.on(Event::Begin(Begin::Fresh), ms(0))),
        [Action::StartFresh { undo: false }]
    );
    assert_eq!(doing(it.on(Event::Up, ms(0))), []);
    it
}

#[test]
fn a_normal_end_is_passed_on() {
    for (event, code) in [(exited(0), 0), (killed(2), 130), (killed(15), 143), (killed(13), 141)] {
        let mut it = running(0, &[]);
        assert_eq!(doing(it.on(event, ms(10))), []);
        assert_eq!(doing(it.on(Event::Gone, ms(11))), [Action::Exit { code }]);
    }
}

#[test]
fn snapshots_come_at_the_start_and_then_by_schedule() {
    let mut it = running(500, &[]);
    let take = |trigger| Action::Checkpoint { trigger, tags: vec![], stop: false };
    assert_eq!(it.wake_at(), Some(ms(100)));
    assert_eq!(it.on(Event::Tick, ms(100)), [take("start")]);
    // One that is due meanwhile is left out.
    assert_eq!(it.on(Event::Tick, ms(650)), []);
    let done = doing(it.on(Event::Checkpointed { seq: 1 }, ms(700)));
    assert_eq!(done, [Action::Retain { keep_last: 10 }]);
    assert_eq!(it.wake_at(), Some(ms(1100)));
    assert_eq!(it.on(Event::Tick, ms(1150)), [take("schedule")]);
}

#[test]
fn a_crash_brings_the_newest_snapshot_back() {
    let mut it = running(500, &[]);
    it.on(Event::Tick, ms(100));
    it.on(Event::Checkpointed { seq: 1 }, ms(150));
    // Its children need not end by themselves: what they do is undone.
    assert_eq!(doing(it.on(killed(9), ms(300))), [Action::Kill]);
    assert_eq!(doing(it.on(Event::Gone, ms(310))), []);
    assert_eq!(it.wake_at(), Some(ms(410)));
    assert_eq!(it.on(Event::Tick, ms(410)), [Action::Restore { seq: 1 }]);
    assert_eq!(it.state(), "restoring");
    it.on(Event::Up, ms(420));
    assert_eq!(it.state(), "running");
}

#[test]
fn a_snapshot_in_progress_at_a_crash_is_no_obstacle() {
    let mut it = running(500, &[]);
    it.on(Event::Tick, ms(100));
    it.on(Event::Checkpointed { seq: 1 }, ms(150));
    it.on(Event::Tick, ms(600));
    it.on(killed(9), ms(610));
    it.on(Event::NotCheckpointed { why: "it died".into() }, ms(611));
    it.on(Event::Gone, ms(612));
    assert_eq!(it.on(Event::Tick, ms(800)), [Action::Restore { seq: 1 }]);
}

#[test]
fn a_shim_that_is_killed_is_a_crash_like_another() {
    let mut it = running(500, &[]);
    it.on(Event::Tick, ms(100));
    it.on(Event::Checkpointed { seq: 4 }, ms(150));
    it.on(Event::Gone, ms(300));
    assert_eq!(it.on(Event::Tick, ms(400)), [Action::Restore { seq: 4 }]);
}

fn recover(ended: Option<Ended>, asked: bool) -> Event {
    Event::Begin(Begin::Recover { ended, asked, lived: ms(20_000) })
}

#[test]
fn what_ended_without_a_keeper_is_judged_by_the_next() {
    let mut it = machine(500, &[1, 2]);
    assert_eq!(doing(it.on(recover(None, false), ms(0))), []);
    assert_eq!(it.on(Event::Tick, ms(100)), [Action::Restore { seq: 2 }]);
    let mut it = machine(500, &[1, 2]);
    let ended = Some(Ended { status: 0, signal: 0 });
    assert_eq!(doing(it.on(recover(ended, false), ms(0))), [Action::Exit { code: 0 }]);
    // The keeper that was asked for the end did not live to see it.
    let mut it = machine(500, &[1, 2]);
    assert_eq!(doing(it.on(recover(None, true), ms(0))), [Action::Exit { code: 137 }]);
}

#[test]
fn what_a_worker_of_an_earlier_keeper_does_counts() {
    let mut it = machine(500, &[1]);
    let met = Met { at_work: true, since_snapshot: Some(ms(300)), ..Met::default() };
    let later = ms(10_000);
    assert_eq!(doing(it.on(Event::Begin(Begin::Running(met)), later)), []);
    assert_eq!(it.state(), "checkpointing");
    it.on(Event::Checkpointed { seq: 2 }, later + ms(10));
    assert_eq!(it.wake_at(), Some(later + ms(200)), "by the snapshot before");
    it.on(killed(9), later + ms(20));
    it.on(Event::Gone, later + ms(20));
    assert_eq!(it.on(Event::Tick, later + ms(120)), [Action::Restore { seq: 2 }]);
}

#[test]
fn a_snapshot_that_becomes_durable_after_the_crash_is_the_newest() {
    let mut it = running(500, &[]);
    it.on(Event::Tick, ms(100));
    it.on(Event::Checkpointed { seq: 1 }, ms(150));
    it.on(Event::Tick, ms(600));
    it.on(killed(9), ms(610));
    it.on(Event::Gone, ms(612));
    it.on(Event::Checkpointed { seq: 2 }, ms(620));
    assert_eq!(it.on(Event::Tick, ms(800)), [Action::Restore { seq: 2 }]);
}

#[test]
fn a_last_snapshot_ends_it_whichever_news_comes_first() {
    let ask = || Event::Asked { id: 1, ask: Ask::Checkpoint { stop: true, tags: vec![] } };
    let done = Event::Checkpointed { seq: 1 };
    for early in [false, true] {
        let mut it = running(0, &[]);
        it.on(ask(), ms(1));
        let mut all = Vec::new();
        if early {
            all.extend(it.on(done.clone(), ms(2)));
        }
        all.extend(it.on(killed(9), ms(3)));
        all.extend(it.on(Event::Gone, ms(4)));
        if !early {
            all.extend(it.on(done.clone(), ms(5)));
        }
        let exit = Action::Exit { code: 137 };
        assert!(all.contains(&Action::answer(1, Some(1))) && all.contains(&exit), "{all:?}");
    }
    // It died before that was safe: a crash.
    let mut it = running(0, &[1]);
    it.on(Event::Checkpointed { seq: 1 }, ms(0));
    it.on(ask(), ms(1));
    it.on(killed(9), ms(3));
    it.on(Event::NotCheckpointed { why: "it died".into() }, ms(4));
    it.on(Event::Gone, ms(4));
    assert_eq!(it.on(Event::Tick, ms(110)), [Action::Restore { seq: 1 }]);
}

#[test]
fn crashes_at_once_step_back_start_fresh_and_fail() {
    let mut it = running(0, &[]);
    (1..=7).for_each(|seq| drop(it.on(Event::Checkpointed { seq }, ms(1))));
    let (mut at, mut done) = (ms(20_000), Vec::new());
    while !matches!(done.last(), Some(Action::Exit { .. })) {
        it.on(killed(11), at);
        done.extend(doing(it.on(Event::Gone, at)));
        at = it.wake_at().unwrap_or(at);
        done.extend(doing(it.on(Event::Tick, at)));
        it.on(Event::Up, at);
    }
    let mut expected: Vec<_> = [7, 6, 5, 4].map(|seq| Action::Restore { seq }).to_vec();
    expected.extend([Action::StartFresh { undo: true }, Action::Exit { code: 139 }]);
    assert_eq!(done, expected);
}

#[test]
fn as_long_as_new_snapshots_are_in_doubt_old_ones_stay() {
    let mut it = running(0, &[]);
    (1..=3).for_each(|seq| drop(it.on(Event::Checkpointed { seq }, ms(1))));
    it.on(killed(11), ms(20_000));
    it.on(Event::Gone, ms(20_000));
    it.on(Event::Tick, ms(20_100));
    it.on(Event::Up, ms(20_100));
    assert_eq!(doing(it.on(Event::Checkpointed { seq: 4 }, ms(25_000))), []);
    let retain = Action::Retain { keep_last: 10 };
    assert_eq!(doing(it.on(Event::Checkpointed { seq: 5 }, ms(31_000))), [retain]);
}

#[test]
fn a_damaged_snapshot_is_stepped_over_but_a_person_is_asked() {
    let mut it = running(0, &[]);
    (1..=2).for_each(|seq| drop(it.on(Event::Checkpointed { seq }, ms(1))));
    it.on(killed(11), ms(20_000));
    it.on(Event::Gone, ms(20_000));
    it.on(Event::Tick, ms(20_100));
    it.on(Event::NotRestored { why: "damaged".into() }, ms(20_100));
    assert_eq!(it.on(Event::Tick, ms(20_300)), [Action::Restore { seq: 1 }]);
    let mut it = machine(0, &[1, 2]);
    it.on(Event::Begin(Begin::Restore(2)), ms(0));
    let done = doing(it.on(Event::NotRestored { why: "damaged".into() }, ms(1)));
    assert_eq!(done, [Action::Exit { code: 1 }]);
}

#[test]
fn requests_wait_for_a_workload_that_is_about_to_run() {
    let mut it = machine(0, &[1]);
    it.on(Event::Begin(Begin::Restore(1)), ms(0));
    let ask = Event::Asked { id: 3, ask: Ask::Checkpoint { stop: false, tags: vec![] } };
    assert_eq!(it.on(ask, ms(1)), []);
    let done = doing(it.on(Event::Up, ms(2)));
    assert!(matches!(done.as_slice(), [Action::Checkpoint { .. }]), "{done:?}");
}

#[test]
fn too_many_starts_are_a_failure() {
    let mut it = running(0, &[]);
    it.on(Event::Checkpointed { seq: 1 }, ms(1));
    it.options.limit = Limit { starts: 2, within: ms(60_000) };
    let mut last = Vec::new();
    for second in [11, 22, 33] {
        it.on(killed(9), ms(second * 1000));
        last = doing(it.on(Event::Gone, ms(second * 1000)));
        it.on(Event::Tick, ms(second * 1000 + 500));
        it.on(Event::Up, ms(second * 1000 + 500));
    }
    assert_eq!(last, [Action::Exit { code: 137 }]);
}

#[test]
fn an_end_asked_for_is_no_crash() {
    let mut it = running(0, &[]);
    let stop = Ask::Stop { signal: 15, timeout: ms(1000) };
    let done = it.on(Event::Asked { id: 7, ask: stop }, ms(10));
    assert_eq!(done, [Action::Signal { number: 15 }]);
    // It does not listen: by force, then.
    assert_eq!(it.on(Event::Tick, ms(1010)), [Action::Kill]);
    it.on(killed(9), ms(1020));
    let end = doing(it.on(Event::Gone, ms(1030)));
    assert_eq!(end, [Action::answer(7, None), Action::Exit { code: 137 }]);
}

#[test]
fn a_rollback_ends_it_and_goes_on_from_the_snapshot() {
    let mut it = running(0, &[]);
    for seq in 1..=3 {
        it.on(Event::Checkpointed { seq }, ms(1));
    }
    let ask = Event::Asked { id: 1, ask: Ask::Rollback { seq: 2 } };
    assert_eq!(it.on(ask, ms(10)), [Action::Kill]);
    it.on(killed(9), ms(11));
    assert_eq!(doing(it.on(Event::Gone, ms(12))), [Action::Restore { seq: 2 }]);
    assert_eq!(doing(it.on(Event::Up, ms(13))), [Action::answer(1, Some(2))]);
    // What it left behind is not of its line any more.
    it.on(killed(11), ms(20_000));
    it.on(Event::Gone, ms(20_001));
    assert_eq!(it.on(Event::Tick, ms(20_101)), [Action::Restore { seq: 2 }]);
}

/// Its worker is killed with the rest of the tree, which is nothing to look into.
#[test]
fn a_snapshot_in_progress_is_given_up_for_a_rollback() {
    let mut it = running(0, &[1]);
    it.on(Event::Asked { id: 1, ask: Ask::Checkpoint { stop: false, tags: vec![] } }, ms(1));
    assert_eq!(it.on(Event::Asked { id: 2, ask: Ask::Rollback { seq: 1 } }, ms(2)), [Action::Kill]);
    let done = it.on(Event::NotCheckpointed { why: "killed by signal 9".into() }, ms(3));
    let why = "it was given up for a roll back";
    let failed = Action::record(Kind::CheckpointFailed, None, why);
    assert_eq!(done, [failed, Action::refuse(1, why)]);
}

#[test]
fn requests_wait_for_the_snapshot_in_progress() {
    let mut it = running(0, &[]);
    let ask = |id| Event::Asked { id, ask: Ask::Checkpoint { stop: false, tags: vec![] } };
    assert_eq!(it.on(ask(1), ms(1)).len(), 1);
    assert_eq!(it.on(ask(2), ms(2)), []);
    let done = doing(it.on(Event::Checkpointed { seq: 1 }, ms(3)));
    assert_eq!(done[0], Action::answer(1, Some(1)));
    assert!(matches!(done[2], Action::Checkpoint { .. }));
}
