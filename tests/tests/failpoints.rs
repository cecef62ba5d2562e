//! Every failpoint: the process ends there under load, is started again, and nothing that was acknowledged is gone.
//!
//! `cargo failpoints` runs it. `MECHI_FIRE_ROUNDS=500 cargo failpoints` goes round the places of each case more often.

#[path = "failpoints/bugs.rs"]
mod bugs;
#[path = "failpoints/compact.rs"]
mod compact;
#[path = "failpoints/errors.rs"]
mod errors;
#[path = "failpoints/members.rs"]
mod members;
#[path = "failpoints/rig.rs"]
mod rig;
#[path = "failpoints/single.rs"]
mod single;

use mechi_server::failpoint::SITES;
use mechi_tests::usage::words_in;
use std::collections::BTreeSet;

#[test]
fn every_place_is_in_one_case_and_in_this_program_alone() {
    let cases = [single::SITES, members::SITES, compact::SITES];
    let covered: Vec<&str> = cases.into_iter().flatten().copied().collect();
    let once: BTreeSet<&str> = covered.iter().copied().collect();
    assert_eq!(once, SITES.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(covered.len(), SITES.len(), "a place is in two cases");
    // That the ordinary program holds none of these words is an ordinary test; here they must be found.
    assert_eq!(words_in(&rig::program(), SITES), once);
}
