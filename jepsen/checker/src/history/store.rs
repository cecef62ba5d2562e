//! Requests to the whole store and its answers: etcd's own messages, as EDN.
//!
//! A field that has its default value is left out. Of a header only the revision is kept: who answered, and in which
//! term, is said by the line of the history.

use crate::edn::Edn;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request as AskOp;
use pb::response_op::Response as AnswerOp;
use std::collections::BTreeMap;

/// A request to the whole store.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compaction(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
}

/// The answer to one.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
}

impl Request {
    /// The function's name in a history; it is no other workload's.
    pub fn f(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) => "put",
            Self::DeleteRange(_) => "delete",
            Self::Txn(_) => "kv-txn",
            Self::Compaction(_) => "compact",
            Self::LeaseGrant(_) => "grant",
            Self::LeaseRevoke(_) => "revoke",
            Self::LeaseKeepAlive(_) => "keep-alive",
            Self::LeaseTimeToLive(_) => "ttl",
        }
    }

    /// Whether it reads at whichever revision the member happens to have.
    pub fn is_serializable(&self) -> bool {
        let serializable =
            |op: &pb::RequestOp| matches!(&op.request, Some(AskOp::RequestRange(range)) if range.serializable);
        match self {
            Self::Range(range) => range.serializable,
            Self::Txn(txn) => txn.success.iter().chain(&txn.failure).all(serializable),
            _ => false,
        }
    }

    /// Whether no outcome of it can change the store.
    pub fn is_read(&self) -> bool {
        let reads = |op: &pb::RequestOp| matches!(&op.request, Some(AskOp::RequestRange(_)));
        match self {
            Self::Range(_) | Self::LeaseKeepAlive(_) | Self::LeaseTimeToLive(_) => true,
            Self::Txn(txn) => txn.success.iter().chain(&txn.failure).all(reads),
            _ => false,
        }
    }

    /// As the value of a line.
    pub fn to_edn(&self) -> Edn {
        match self {
            Self::Range(range) => range_ask(range),
            Self::Put(put) => put_ask(put),
            Self::DeleteRange(delete) => delete_ask(delete),
            Self::Txn(txn) => txn_ask(txn),
            Self::Compaction(it) => Out::new().int("revision", it.revision).flag("physical", it.physical).done(),
            Self::LeaseGrant(it) => Out::new().int("id", it.id).int("ttl", it.ttl).done(),
            Self::LeaseRevoke(it) => Out::new().int("id", it.id).done(),
            Self::LeaseKeepAlive(it) => Out::new().int("id", it.id).done(),
            Self::LeaseTimeToLive(it) => Out::new().int("id", it.id).flag("keys", it.keys).done(),
        }
    }

    /// From the function and the value of a line; `None` if the function is not the store's.
    pub fn from_edn(f: &str, edn: &Edn) -> Option<Result<Self, String>> {
        let it = In(edn);
        Some(match f {
            "range" => range_asked(it).map(Self::Range),
            "put" => put_asked(it).map(Self::Put),
            "delete" => delete_asked(it).map(Self::DeleteRange),
            "kv-txn" => txn_asked(it).map(Self::Txn),
            "compact" => (|| {
                Ok(Self::Compaction(pb::CompactionRequest {
                    revision: it.int("revision")?,
                    physical: it.flag("physical")?,
                }))
            })(),
            "grant" => (|| Ok(Self::LeaseGrant(pb::LeaseGrantRequest { id: it.int("id")?, ttl: it.int("ttl")? })))(),
            "revoke" => it.int("id").map(|id| Self::LeaseRevoke(pb::LeaseRevokeRequest { id })),
            "keep-alive" => it.int("id").map(|id| Self::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id })),
            "ttl" => {
                (|| Ok(Self::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: it.int("id")?, keys: it.flag("keys")? })))(
                )
            }
            _ => return None,
        })
    }
}

impl Response {
    /// The function's name in a history.
    pub fn f(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) => "put",
            Self::DeleteRange(_) => "delete",
            Self::Txn(_) => "kv-txn",
            Self::Compaction(_) => "compact",
            Self::LeaseGrant(_) => "grant",
            Self::LeaseRevoke(_) => "revoke",
            Self::LeaseKeepAlive(_) => "keep-alive",
            Self::LeaseTimeToLive(_) => "ttl",
        }
    }

    /// The header's revision; 0 if there is none.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Self::Range(it) => &it.header,
            Self::Put(it) => &it.header,
            Self::DeleteRange(it) => &it.header,
            Self::Txn(it) => &it.header,
            Self::Compaction(it) => &it.header,
            Self::LeaseGrant(it) => &it.header,
            Self::LeaseRevoke(it) => &it.header,
            Self::LeaseKeepAlive(it) => &it.header,
            Self::LeaseTimeToLive(it) => &it.header,
        };
        revision(header)
    }

    /// As the value of a line.
    pub fn to_edn(&self) -> Edn {
        match self {
            Self::Range(it) => range_answer(it),
            Self::Put(it) => put_answer(it),
            Self::DeleteRange(it) => delete_answer(it),
            Self::Txn(it) => txn_answer(it),
            Self::Compaction(it) => Out::at(&it.header).done(),
            Self::LeaseGrant(it) => {
                Out::at(&it.header).int("id", it.id).int("ttl", it.ttl).text("error", &it.error).done()
            }
            Self::LeaseRevoke(it) => Out::at(&it.header).done(),
            Self::LeaseKeepAlive(it) => Out::at(&it.header).int("id", it.id).int("ttl", it.ttl).done(),
            Self::LeaseTimeToLive(it) => Out::at(&it.header)
                .int("id", it.id)
                .int("ttl", it.ttl)
                .int("granted", it.granted_ttl)
                .all("keys", &it.keys, bytes_edn)
                .done(),
        }
    }

    /// From the function and the value of a line; `None` if the function is not the store's.
    pub fn from_edn(f: &str, edn: &Edn) -> Option<Result<Self, String>> {
        let it = In(edn);
        Some(match f {
            "range" => range_answered(it).map(Self::Range),
            "put" => put_answered(it).map(Self::Put),
            "delete" => delete_answered(it).map(Self::DeleteRange),
            "kv-txn" => txn_answered(it).map(Self::Txn),
            "compact" => it.header().map(|header| Self::Compaction(pb::CompactionResponse { header })),
            "grant" => (|| {
                let error = it.0.get("error").name().unwrap_or_default().to_owned();
                let (header, id, ttl) = (it.header()?, it.int("id")?, it.int("ttl")?);
                Ok(Self::LeaseGrant(pb::LeaseGrantResponse { header, id, ttl, error }))
            })(),
            "revoke" => it.header().map(|header| Self::LeaseRevoke(pb::LeaseRevokeResponse { header })),
            "keep-alive" => (|| {
                let (header, id, ttl) = (it.header()?, it.int("id")?, it.int("ttl")?);
                Ok(Self::LeaseKeepAlive(pb::LeaseKeepAliveResponse { header, id, ttl }))
            })(),
            "ttl" => (|| {
                Ok(Self::LeaseTimeToLive(pb::LeaseTimeToLiveResponse {
                    header: it.header()?,
                    id: it.int("id")?,
                    ttl: it.int("ttl")?,
                    granted_ttl: it.int("granted")?,
                    keys: it.all("keys", bytes_of)?,
                }))
            })(),
            _ => return None,
        })
    }
}

/// A header's revision; 0 without a header.
pub fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}

/// A header that says no more than the revision.
pub fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

/// Writes a key or a value: a text where it is one, else `{:hex "..."}`.
pub fn bytes_edn(bytes: &Bytes) -> Edn {
    match std::str::from_utf8(bytes) {
        Ok(text) => Edn::text(text),
        Err(_) => Edn::map([("hex", Edn::Str(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))]),
    }
}

/// Reads a key or a value.
pub fn bytes_of(edn: &Edn) -> Result<Bytes, String> {
    if let Edn::Str(text) = edn {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let hex = edn.get("hex").name().filter(|hex| hex.is_ascii() && hex.len() % 2 == 0);
    let bytes = hex.and_then(|hex| {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect::<Option<Vec<u8>>>()
    });
    bytes.map(Bytes::from).ok_or_else(|| format!("{edn} is no text and no {{:hex \"...\"}}"))
}

/// Writes one version of a key.
pub fn kv_edn(kv: &KeyValue) -> Edn {
    Out::new()
        .bytes("key", &kv.key)
        .bytes("value", &kv.value)
        .int("create", kv.create_revision)
        .int("mod", kv.mod_revision)
        .int("version", kv.version)
        .int("lease", kv.lease)
        .done()
}

/// Reads one version of a key.
pub fn kv_of(edn: &Edn) -> Result<KeyValue, String> {
    let it = In(edn);
    Ok(KeyValue {
        key: it.bytes("key")?,
        value: it.bytes("value")?,
        create_revision: it.int("create")?,
        mod_revision: it.int("mod")?,
        version: it.int("version")?,
        lease: it.int("lease")?,
    })
}

/// A map that is being made.
struct Out(BTreeMap<Edn, Edn>);

impl Out {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn at(header: &Option<pb::ResponseHeader>) -> Self {
        Self::new().int("revision", revision(header))
    }

    fn with(mut self, name: &str, value: Edn) -> Self {
        self.0.insert(Edn::keyword(name), value);
        self
    }

    fn int(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.with(name, value.into()) }
    }

    fn flag(self, name: &str, value: bool) -> Self {
        if value { self.with(name, Edn::Bool(true)) } else { self }
    }

    fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, Edn::text(value)) }
    }

    fn bytes(self, name: &str, value: &Bytes) -> Self {
        if value.is_empty() { self } else { self.with(name, bytes_edn(value)) }
    }

    fn all<T>(self, name: &str, items: &[T], edn: impl Fn(&T) -> Edn) -> Self {
        if items.is_empty() { self } else { self.with(name, Edn::Vector(items.iter().map(edn).collect())) }
    }

    fn done(self) -> Edn {
        Edn::Map(self.0)
    }
}

/// A map that is being read.
#[derive(Clone, Copy)]
struct In<'a>(&'a Edn);

impl In<'_> {
    fn int(&self, name: &str) -> Result<i64, String> {
        match self.0.get(name) {
            Edn::Nil => Ok(0),
            edn => edn.int().ok_or_else(|| format!(":{name} is {edn}, wanted an integer")),
        }
    }

    fn small(&self, name: &str) -> Result<i32, String> {
        let int = self.int(name)?;
        i32::try_from(int).map_err(|_| format!(":{name} is {int}, which is too large"))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.0.get(name) {
            Edn::Nil => Ok(false),
            Edn::Bool(flag) => Ok(*flag),
            edn => Err(format!(":{name} is {edn}, wanted true or false")),
        }
    }

    fn bytes(&self, name: &str) -> Result<Bytes, String> {
        match self.0.get(name) {
            Edn::Nil => Ok(Bytes::new()),
            edn => bytes_of(edn),
        }
    }

    fn all<T>(&self, name: &str, of: impl Fn(&Edn) -> Result<T, String>) -> Result<Vec<T>, String> {
        match self.0.get(name) {
            Edn::Nil => Ok(vec![]),
            edn => edn.items().ok_or_else(|| format!(":{name} is {edn}, wanted a vector"))?.iter().map(of).collect(),
        }
    }

    fn header(&self) -> Result<Option<pb::ResponseHeader>, String> {
        let revision = self.int("revision")?;
        Ok(if revision == 0 { None } else { header(revision) })
    }
}

fn range_ask(it: &pb::RangeRequest) -> Edn {
    Out::new()
        .bytes("key", &it.key)
        .bytes("end", &it.range_end)
        .int("limit", it.limit)
        .int("revision", it.revision)
        .int("sort-order", it.sort_order.into())
        .int("sort-target", it.sort_target.into())
        .flag("serializable", it.serializable)
        .flag("keys-only", it.keys_only)
        .flag("count-only", it.count_only)
        .int("min-mod", it.min_mod_revision)
        .int("max-mod", it.max_mod_revision)
        .int("min-create", it.min_create_revision)
        .int("max-create", it.max_create_revision)
        .done()
}

fn range_asked(it: In<'_>) -> Result<pb::RangeRequest, String> {
    Ok(pb::RangeRequest {
        key: it.bytes("key")?,
        range_end: it.bytes("end")?,
        limit: it.int("limit")?,
        revision: it.int("revision")?,
        sort_order: it.small("sort-order")?,
        sort_target: it.small("sort-target")?,
        serializable: it.flag("serializable")?,
        keys_only: it.flag("keys-only")?,
        count_only: it.flag("count-only")?,
        min_mod_revision: it.int("min-mod")?,
        max_mod_revision: it.int("max-mod")?,
        min_create_revision: it.int("min-create")?,
        max_create_revision: it.int("max-create")?,
    })
}

fn range_answer(it: &pb::RangeResponse) -> Edn {
    Out::at(&it.header).all("kvs", &it.kvs, kv_edn).flag("more", it.more).int("count", it.count).done()
}

fn range_answered(it: In<'_>) -> Result<pb::RangeResponse, String> {
    let (header, kvs) = (it.header()?, it.all("kvs", kv_of)?);
    Ok(pb::RangeResponse { header, kvs, more: it.flag("more")?, count: it.int("count")? })
}

fn put_ask(it: &pb::PutRequest) -> Edn {
    Out::new()
        .bytes("key", &it.key)
        .bytes("value", &it.value)
        .int("lease", it.lease)
        .flag("prev-kv", it.prev_kv)
        .flag("ignore-value", it.ignore_value)
        .flag("ignore-lease", it.ignore_lease)
        .done()
}

fn put_asked(it: In<'_>) -> Result<pb::PutRequest, String> {
    Ok(pb::PutRequest {
        key: it.bytes("key")?,
        value: it.bytes("value")?,
        lease: it.int("lease")?,
        prev_kv: it.flag("prev-kv")?,
        ignore_value: it.flag("ignore-value")?,
        ignore_lease: it.flag("ignore-lease")?,
    })
}

fn put_answer(it: &pb::PutResponse) -> Edn {
    let out = Out::at(&it.header);
    it.prev_kv.iter().fold(out, |out, kv| out.with("prev", kv_edn(kv))).done()
}

fn put_answered(it: In<'_>) -> Result<pb::PutResponse, String> {
    let prev_kv = match it.0.get("prev") {
        Edn::Nil => None,
        edn => Some(kv_of(edn)?),
    };
    Ok(pb::PutResponse { header: it.header()?, prev_kv })
}

fn delete_ask(it: &pb::DeleteRangeRequest) -> Edn {
    Out::new().bytes("key", &it.key).bytes("end", &it.range_end).flag("prev-kv", it.prev_kv).done()
}

fn delete_asked(it: In<'_>) -> Result<pb::DeleteRangeRequest, String> {
    Ok(pb::DeleteRangeRequest { key: it.bytes("key")?, range_end: it.bytes("end")?, prev_kv: it.flag("prev-kv")? })
}

fn delete_answer(it: &pb::DeleteRangeResponse) -> Edn {
    Out::at(&it.header).int("deleted", it.deleted).all("prev", &it.prev_kvs, kv_edn).done()
}

fn delete_answered(it: In<'_>) -> Result<pb::DeleteRangeResponse, String> {
    let prev_kvs = it.all("prev", kv_of)?;
    Ok(pb::DeleteRangeResponse { header: it.header()?, deleted: it.int("deleted")?, prev_kvs })
}

fn txn_ask(it: &pb::TxnRequest) -> Edn {
    let op = |op: &pb::RequestOp| match &op.request {
        None => Edn::Nil,
        Some(AskOp::RequestRange(it)) => Edn::Vector(vec![Edn::keyword("range"), range_ask(it)]),
        Some(AskOp::RequestPut(it)) => Edn::Vector(vec![Edn::keyword("put"), put_ask(it)]),
        Some(AskOp::RequestDeleteRange(it)) => Edn::Vector(vec![Edn::keyword("delete"), delete_ask(it)]),
        Some(AskOp::RequestTxn(it)) => Edn::Vector(vec![Edn::keyword("txn"), txn_ask(it)]),
    };
    Out::new().all("if", &it.compare, compare_ask).all("then", &it.success, op).all("else", &it.failure, op).done()
}

fn txn_asked(it: In<'_>) -> Result<pb::TxnRequest, String> {
    let op = |edn: &Edn| {
        let request = match edn.items() {
            None if *edn == Edn::Nil => None,
            Some([f, value]) => Some(match f.name() {
                Some("range") => AskOp::RequestRange(range_asked(In(value))?),
                Some("put") => AskOp::RequestPut(put_asked(In(value))?),
                Some("delete") => AskOp::RequestDeleteRange(delete_asked(In(value))?),
                Some("txn") => AskOp::RequestTxn(txn_asked(In(value))?),
                _ => return Err(format!("{f} is no operation of a transaction")),
            }),
            _ => return Err(format!("{edn} is no operation of a transaction")),
        };
        Ok(pb::RequestOp { request })
    };
    Ok(pb::TxnRequest {
        compare: it.all("if", compare_asked)?,
        success: it.all("then", op)?,
        failure: it.all("else", op)?,
    })
}

fn txn_answer(it: &pb::TxnResponse) -> Edn {
    let op = |op: &pb::ResponseOp| match &op.response {
        None => Edn::Nil,
        Some(AnswerOp::ResponseRange(it)) => Edn::Vector(vec![Edn::keyword("range"), range_answer(it)]),
        Some(AnswerOp::ResponsePut(it)) => Edn::Vector(vec![Edn::keyword("put"), put_answer(it)]),
        Some(AnswerOp::ResponseDeleteRange(it)) => Edn::Vector(vec![Edn::keyword("delete"), delete_answer(it)]),
        Some(AnswerOp::ResponseTxn(it)) => Edn::Vector(vec![Edn::keyword("txn"), txn_answer(it)]),
    };
    Out::at(&it.header).flag("succeeded", it.succeeded).all("responses", &it.responses, op).done()
}

fn txn_answered(it: In<'_>) -> Result<pb::TxnResponse, String> {
    let op = |edn: &Edn| {
        let response = match edn.items() {
            None if *edn == Edn::Nil => None,
            Some([f, value]) => Some(match f.name() {
                Some("range") => AnswerOp::ResponseRange(range_answered(In(value))?),
                Some("put") => AnswerOp::ResponsePut(put_answered(In(value))?),
                Some("delete") => AnswerOp::ResponseDeleteRange(delete_answered(In(value))?),
                Some("txn") => AnswerOp::ResponseTxn(txn_answered(In(value))?),
                _ => return Err(format!("{f} is no answer in a transaction")),
            }),
            _ => return Err(format!("{edn} is no answer in a transaction")),
        };
        Ok(pb::ResponseOp { response })
    };
    let responses = it.all("responses", op)?;
    Ok(pb::TxnResponse { header: it.header()?, succeeded: it.flag("succeeded")?, responses })
}

fn compare_ask(it: &pb::Compare) -> Edn {
    let out = Out::new()
        .bytes("key", &it.key)
        .bytes("end", &it.range_end)
        .int("result", it.result.into())
        .int("target", it.target.into());
    let with = |name, value: i64| Edn::map([(name, Edn::from(value))]);
    let to = match &it.target_union {
        None => return out.done(),
        Some(TargetUnion::Version(it)) => with("version", *it),
        Some(TargetUnion::CreateRevision(it)) => with("create", *it),
        Some(TargetUnion::ModRevision(it)) => with("mod", *it),
        Some(TargetUnion::Lease(it)) => with("lease", *it),
        Some(TargetUnion::Value(it)) => Edn::map([("value", bytes_edn(it))]),
    };
    out.with("to", to).done()
}

fn compare_asked(edn: &Edn) -> Result<pb::Compare, String> {
    let it = In(edn);
    let target_union = match edn.get("to") {
        Edn::Map(map) => {
            let Some((name, value)) = map.iter().next() else { return Err("a compare with nothing".into()) };
            let int = || value.int().ok_or_else(|| format!("{value} is no integer"));
            Some(match name.name() {
                Some("version") => TargetUnion::Version(int()?),
                Some("create") => TargetUnion::CreateRevision(int()?),
                Some("mod") => TargetUnion::ModRevision(int()?),
                Some("lease") => TargetUnion::Lease(int()?),
                Some("value") => TargetUnion::Value(bytes_of(value)?),
                _ => return Err(format!("{name} cannot be compared")),
            })
        }
        _ => None,
    };
    Ok(pb::Compare {
        key: it.bytes("key")?,
        range_end: it.bytes("end")?,
        result: it.small("result")?,
        target: it.small("target")?,
        target_union,
    })
}
