//! A model that is ready stays ready through every load, and every load is told to drain once.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Compares the version and load that answer a request for `version`, or its refusal.
fn check(model: &ModelLifecycle, version: &str, expected: &str) {
    let answer = match model.resolve(version) {
        Ok(id) => model
            .find(id)
            .map(|l| format!("version {} load {}", l.version, l.id.0))
            .unwrap(),
        Err(why) => why.to_string(),
    };
    assert_eq!(answer, expected);
}

fn serve(model: &mut ModelLifecycle, version: u64) -> (LoadId, Vec<LoadId>) {
    let id = model.load(version).unwrap();
    model.loaded(id).unwrap();
    (id, model.ready(id).unwrap())
}

#[test]
fn the_old_version_answers_until_the_new_one_is_warm() {
    let mut model = ModelLifecycle::new("m", 1);
    check(&model, "", "model m is not loaded");
    let (old, _) = serve(&mut model, 1);
    let new = model.load(2).unwrap();
    check(&model, "latest", "version 1 load 0");
    check(&model, "2", "model m version 2 is loading");
    model.loaded(new).unwrap();
    check(&model, "", "version 1 load 0");
    check(&model, "2", "model m version 2 is warming");
    assert_eq!(model.ready(new).unwrap(), [old]);
    check(&model, "", "version 2 load 1");
    check(&model, "1", "model m version 1 is draining");
    model.drained(old).unwrap();
    check(&model, "1", "model m version 1 is unloaded");
    check(&model, "3", "model m has no version 3");
    check(&model, "x", "version x of model m is neither a number nor latest");
}

#[test]
fn a_reload_of_the_same_version_replaces_it() {
    let mut model = ModelLifecycle::new("m", 2);
    let (first, _) = serve(&mut model, 7);
    let (other, leaving) = serve(&mut model, 3);
    assert!(leaving.is_empty());
    let (again, leaving) = serve(&mut model, 7);
    assert_eq!(leaving, [first]);
    assert_eq!(model.resolve("7"), Ok(again));
    assert_eq!(model.resolve("3"), Ok(other));
    assert_eq!(model.resolve("latest"), Ok(again));
}

#[test]
fn a_failed_load_leaves_the_old_version_alone() {
    let mut model = ModelLifecycle::new("m", 1);
    serve(&mut model, 1);
    let new = model.load(2).unwrap();
    model.failed(new, "no weights").unwrap();
    check(&model, "", "version 1 load 0");
    check(&model, "2", "model m version 2 failed: no weights");
}

#[test]
fn loading_an_older_version_goes_back_to_it() {
    let mut model = ModelLifecycle::new("m", 1);
    let (two, _) = serve(&mut model, 2);
    let (_, leaving) = serve(&mut model, 1);
    assert_eq!(leaving, [two]);
    check(&model, "latest", "version 1 load 1");
}

#[test]
fn an_unload_stops_a_load_under_way() {
    let mut model = ModelLifecycle::new("m", 1);
    let (old, _) = serve(&mut model, 1);
    let new = model.load(2).unwrap();
    assert_eq!(
        model.load(2).unwrap_err().to_string(),
        "model m version 2 is being loaded already"
    );
    assert_eq!(model.unload(None), [old]);
    assert!(!model.is_ready());
    let late = model.loaded(new).unwrap_err();
    assert_eq!(
        late.to_string(),
        "model m version 2 cannot become warming: it is unloaded"
    );
    check(&model, "", "model m version 2 is unloaded");
}

#[test]
fn a_dead_executor_takes_its_version_out_of_service() {
    let mut model = ModelLifecycle::new("m", 2);
    serve(&mut model, 1);
    let (new, _) = serve(&mut model, 2);
    model.failed(new, "its executor died").unwrap();
    check(&model, "", "version 1 load 0");
}

#[test]
fn the_server_never_returns_to_an_earlier_state() {
    use ServerState::{Draining, Ready, Starting, Stopped};
    let all = [Starting, Ready, Draining, Stopped];
    let allowed = [
        (Starting, Ready),
        (Starting, Draining),
        (Ready, Draining),
        (Draining, Stopped),
    ];
    for from in all {
        for to in all {
            let mut state = from;
            assert_eq!(
                state.enter(to).is_ok(),
                allowed.contains(&(from, to)),
                "{from:?} to {to:?}"
            );
            assert_eq!(state, if allowed.contains(&(from, to)) { to } else { from });
        }
    }
    assert!(Ready.is_ready() && !Draining.is_ready() && Draining.is_live() && !Stopped.is_live());
}

proptest! {
    #[test]
    fn a_ready_model_stays_ready_until_unloaded_or_failed(
        steps in prop::collection::vec((0..6_u8, 0..4_u64, 0..64_usize), 1..200),
        serving_max in 1..4_usize,
    ) {
        let mut model = ModelLifecycle::new("m", serving_max);
        let mut ids: Vec<LoadId> = Vec::new();
        let mut told = HashSet::new();
        for (step, version, pick) in steps {
            let was_ready = model.is_ready();
            let id = ids.get(pick % ids.len().max(1)).copied();
            let state = |m: &ModelLifecycle, id| m.find(id).map(|l| l.state.clone());
            let mut may_stop = false;
            match (step, id) {
                (0, _) => ids.extend(model.load(version).ok()),
                (1, Some(id)) => { let _ = model.loaded(id); }
                (2, Some(id)) => for old in model.ready(id).unwrap_or_default() {
                    prop_assert!(told.insert(old), "{old:?} was told to drain twice");
                },
                (3, Some(id)) => { let _ = model.drained(id); }
                (4, Some(id)) => {
                    may_stop = state(&model, id) == Some(VersionState::Ready);
                    let _ = model.failed(id, "chance");
                }
                (5, _) if pick < 8 => {
                    may_stop = true;
                    for old in model.unload((pick > 1).then_some(version)) {
                        prop_assert!(told.insert(old), "{old:?} was told to drain twice");
                    }
                }
                _ => {}
            }
            prop_assert!(model.is_ready() || !was_ready || may_stop);
            let ready: Vec<_> = model.loads().iter().filter(|l| l.state == VersionState::Ready).collect();
            prop_assert!(ready.len() <= serving_max);
            prop_assert_eq!(ready.len(), model.serving.len());
            for load in &ready {
                prop_assert_eq!(model.resolve(&load.version.to_string()), Ok(load.id));
            }
            for draining in model.loads().iter().filter(|l| l.state == VersionState::Draining) {
                prop_assert!(told.contains(&draining.id));
            }
        }
    }
}
