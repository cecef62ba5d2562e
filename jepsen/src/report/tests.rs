//! A report shows each run, what was wrong with it, and how to repeat it.

use super::*;
use crate::recorder::{Done, Level, Recorder};
use mechi_checker::edn::Edn;
use mechi_checker::history::Kind;
use mechi_checker::history::value::{Set, Value};

fn a_run(dir: &Path, nemesis: &str, lost: bool) {
    let recorder = Recorder::create(dir).expect("begins");
    let value = Value::Set;
    recorder.invoke(Level::Operation, 0, value(Set::Add(1)), None);
    recorder.complete(Level::Operation, 0, Done::new(Kind::Ok, value(Set::Add(1))));
    recorder.nemesis("kill", Edn::Nil);
    recorder.nemesis("heal", Edn::Nil);
    recorder.healed();
    recorder.invoke(Level::Operation, 0, value(Set::Read(None)), None);
    let seen = if lost { vec![] } else { vec![1] };
    recorder.complete(Level::Operation, 0, Done::new(Kind::Ok, value(Set::Read(Some(seen.into_iter().collect())))));
    recorder.finish().expect("writes");
    let command = format!("jepsen run --workload set --nemesis {nemesis}");
    let options = Edn::map([
        ("workload", Edn::text("set")),
        ("nemesis", Edn::text(nemesis)),
        ("command", Edn::text(command)),
        ("members", Edn::Vector(vec![])),
        ("effects-wanted", Edn::from(0_u64)),
    ]);
    fs::write(dir.join(crate::judge::OPTIONS), options.to_string()).expect("writes");
}

#[test]
fn a_report_shows_every_run_and_what_is_wrong_with_it() {
    let home = tempfile::tempdir().expect("a folder");
    for (name, nemesis, lost) in [("good", "pause", false), ("bad", "kill", true)] {
        let dir = home.path().join(name);
        a_run(&dir, nemesis, lost);
        crate::judge::judge(&dir).expect("judges");
    }
    a_run(&home.path().join("unjudged"), "none", false);
    let out = home.path().join("report.html");
    write(home.path(), &out).expect("writes");
    let page = fs::read_to_string(out).expect("is there");
    for wanted in [
        "3 runs",
        "1 without a verdict",
        "jepsen run --workload set --nemesis kill",
        "lost: read",
        "<td class=\"invalid\"><a href=\"#bad\">",
        "longest silence",
    ] {
        assert!(page.contains(wanted), "{wanted} is missing:\n{page}");
    }
    assert!(!page.contains("<script"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<section").count(), 3);
}
