//! Records are shared between threads: whoever lets go last frees, and nobody sees anything else meanwhile.

use mechi_replica::record::{Fields, Record};

#[test]
fn a_record_lives_as_long_as_any_thread_holds_it() {
    let value = vec![7; 1_000];
    let record = Record::encode(&Fields { key: b"key", value: &value, ..Fields::default() });
    let wire = record.wire().to_vec();
    let reads: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (mine, wire) = (record.clone(), &wire);
                scope.spawn(move || (0..20_000).filter(|_| mine.clone().wire() == wire).count())
            })
            .collect();
        drop(record);
        readers.into_iter().map(|reader| reader.join().expect("no panic")).sum()
    });
    assert_eq!(reads, 4 * 20_000);
}

#[test]
fn an_answer_keeps_its_record() {
    let bytes = {
        let record = Record::encode(&Fields { key: b"key", value: b"value", ..Fields::default() });
        record.to_bytes()
    };
    assert_eq!(Record::from_wire(&bytes).fields().map(|fields| fields.value), Some(&b"value"[..]));
}
