//! Unit tests of `suspects`: how the queries of a closed connection are divided, and which one is to blame.

use tokio::time::Duration;

use super::*;
use crate::{
    backend::{
        flights::Flights,
        tests::{Ignores, QUERY},
    },
    dns::{Asked, Query},
};

fn flights(count: usize) -> (Flights, Vec<u16>) {
    let mut flights = Flights::default();
    let query = Query::parse(&QUERY).unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut ask =
        || flights.insert(Asked::by(&query), Rc::new(Ignores), deadline, |_| None).expect("there is room");
    let slots = (0..count).map(|_| ask()).collect();
    (flights, slots)
}

/// A connection that served for a while and left `count` queries unanswered.
fn left(count: usize) -> Accident {
    Accident {
        is_down: false,
        is_about_one: false,
        was_opened: true,
        is_answering: true,
        is_patient: true,
        is_rule: false,
        is_personal: false,
        count,
    }
}

/// Goal: of 512 queries the one that closes connections is alone after five connections and fails after two
/// more, and all others are asked again. Method: the groups that `Accident::decide` forms; the group with
/// that query ends.
#[test]
fn groups_shrink_to_one() {
    let (mut flights, mut group) = flights(512);
    let killer = group[100];
    let mut steps = 0;
    while group.len() > 1 {
        let accident = left(group.len());
        let fates = group.iter().map(|slot| accident.decide(flights.get_mut(*slot).unwrap()));
        assert!(fates.into_iter().all(|fate| fate == Fate::Suspect));
        let company = usize::from(flights.get(killer).unwrap().history.company);
        assert!(company < group.len(), "{company}");
        let place = group.iter().position(|slot| *slot == killer).unwrap();
        group = group.chunks(company).nth(place / company).unwrap().to_vec();
        steps += 1;
    }
    assert_eq!((steps, group), (5, vec![killer]));
    let alone = Accident { is_about_one: true, ..left(1) };
    let flight = flights.get_mut(killer).unwrap();
    assert_eq!([alone.decide(flight), alone.decide(flight)], [Fate::Suspect, Fate::GivenUp]);
}

/// Goal: a query is to blame only for new connections that it closed; connections that could not be opened
/// count when queries do not wait any more. Method: one query after each kind of end.
#[test]
fn only_new_connections_say_that_it_is_the_query() {
    let (mut flights, slots) = flights(3);
    let [used, unopened, refused] = slots[..] else { panic!("three") };
    let flight = flights.get_mut(used).unwrap();
    let fates = [(); 4].map(|()| left(1).decide(flight));
    assert_eq!(fates, [Fate::Suspect, Fate::Suspect, Fate::Suspect, Fate::GivenUp]);
    assert_eq!(flight.history.new_ends, 0, "no client gets a refusal");
    let unopened = flights.get_mut(unopened).unwrap();
    let patient = Accident { was_opened: false, is_personal: true, ..left(1) };
    assert!((0..9).all(|_| patient.decide(unopened) == Fate::Innocent));
    let refused = flights.get_mut(refused).unwrap();
    let hasty = Accident { is_patient: false, ..patient };
    assert_eq!([hasty.decide(refused), hasty.decide(refused)], [Fate::Innocent, Fate::GivenUp]);
}
