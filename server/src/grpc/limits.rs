//! The bounds of the gRPC layer, each with what happens there; those of the store itself are in `mechi_replica::limits`.

/// Bytes of one answer. grpc-go's clients and servers count a message's length in an int32; above:
/// `grpc: trying to send message larger than max`.
pub const ANSWER_BYTES_MAX: u64 = i32::MAX as u64;

/// Bytes that one step of a large answer asks of its reader: what one slow client holds besides its flow-control window.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of an answer that the connection's own task encodes, between its other calls; a longer one gets a task.
pub const SHARED_TASK_BYTES_MAX: usize = 64 * 1024;

/// Pieces up to this many bytes are copied into a common buffer; longer ones travel as they are, uncopied.
pub const COPY_BYTES_MAX: usize = 16 * 1024;

/// Key-values of a RangeStream's first chunk (etcd's number); later ones double or halve towards `--max-request-bytes`.
pub const STREAM_FIRST_CHUNK_KEYS: usize = 10;

/// Keep-alives of one stream that are under way at once; beyond, the stream's next request is read later.
pub const KEEP_ALIVES_IN_FLIGHT: usize = 64;

/// Digits of a `grpc-timeout` (gRPC over HTTP/2, "Requests"); a longer one is malformed.
pub const TIMEOUT_DIGITS_MAX: usize = 8;
