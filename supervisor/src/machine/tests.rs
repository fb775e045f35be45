use super::*;

fn machine(every_ms: u64, line: &[u64]) -> Machine {
    let options = Options {
        every: (every_ms > 0).then(|| Duration::from_millis(every_ms)),
        restart: Restart::OnFailure,
        restart_limit: 10,
        restart_window: ms(60_000),
        keep_last: 10,
    };
    Machine::new(options, line.to_vec())
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
    assert_eq!(doing(it.on(Event::Begin(Begin::Fresh), ms(0))), [Action::StartFresh]);
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
    assert_eq!(it.on(Event::Tick, ms(1150)), [take("schedule")]);
}

#[test]
fn a_crash_brings_the_newest_snapshot_back() {
    let mut it = running(500, &[]);
    it.on(Event::Tick, ms(100));
    it.on(Event::Checkpointed { seq: 1 }, ms(150));
    assert_eq!(doing(it.on(killed(9), ms(300))), []);
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

#[test]
fn what_ended_without_a_keeper_is_judged_by_the_next() {
    let mut it = machine(500, &[1, 2]);
    let crash = Event::Begin(Begin::Recover(None));
    assert_eq!(doing(it.on(crash, ms(0))), []);
    assert_eq!(it.on(Event::Tick, ms(100)), [Action::Restore { seq: 2 }]);
    let mut it = machine(500, &[1, 2]);
    let ended = Begin::Recover(Some(Ended { status: 0, signal: 0 }));
    assert_eq!(doing(it.on(Event::Begin(ended), ms(0))), [Action::Exit { code: 0 }]);
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
