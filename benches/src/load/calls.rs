//! Calls at the least cost: HTTP/2 frames written and read by hand, one read and one write for all calls that one
//! connection has ready.
//!
//! The `h2` crate's client costs more per call than the servers' share that is measured. This does what it must of
//! RFC 9113 as a client of two known servers: settings, pings, both flow-control windows, the limit of streams. Headers
//! are sent as other clients send them, in full once and then by their place in the peer's table. Headers that come are
//! not decoded: a unary call has succeeded if a whole message came before its end, since no server sends one with an
//! error; a call in both directions may not end at all.

use super::connection::Method;
use super::limits::{ANSWER_BYTES_MAX, CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What RFC 9113 gives each window before anything is said.
const WINDOW_DEFAULT: i64 = 65_535;
/// The largest payload of a frame that is sent or taken, which no settings here change.
const FRAME_BYTES_MAX: usize = 16_384;
const FRAME_HEAD_BYTES: usize = 9;
const GRPC_HEAD_BYTES: usize = 5;
const READ_BYTES: usize = 64 << 10;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const NO_ERROR: [u8; 4] = [0; 4];

const SETTING_TABLE_BYTES: u16 = 1;
const SETTING_STREAMS_MAX: u16 = 3;
const SETTING_WINDOW: u16 = 4;

/// A call under way.
struct Call {
    client: usize,
    began: Instant,
    /// The part of a message that came, while it is not whole.
    partial: Vec<u8>,
    answered: bool,
    /// Bytes that came on this stream and that the server was not yet given new room for.
    taken: u32,
    /// Bytes that may still be sent on this stream.
    window: i64,
}

/// A call that waits for room.
type Held = (usize, Bytes, Instant);

/// Who hears of answers.
pub trait Listener {
    /// A whole message came; returns what the client says next on a stream that stays open.
    fn message(&mut self, client: usize, message: &[u8]) -> Result<Option<Bytes>>;

    /// A unary call has ended in success; returns the client's next request and when that began, if there is one.
    fn done(&mut self, client: usize, began: Instant) -> Option<(Bytes, Instant)>;
}

/// One connection for calls of one method: unary ones, or ones in both directions, which stay open.
pub struct Calls {
    read: RefCell<OwnedReadHalf>,
    write: OwnedWriteHalf,
    state: RefCell<State>,
}

impl Calls {
    /// Connects to `host:port`.
    pub async fn open(endpoint: &str, method: Method) -> Result<Self> {
        let stream = TcpStream::connect(endpoint).await.with_context(|| format!("connect to {endpoint}"))?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self { read: RefCell::new(read), write, state: RefCell::new(State::new(endpoint, method)) })
    }

    /// Begins a call whose latency counts from `began`; [`Calls::flush`] sends it.
    pub fn begin(&self, client: usize, request: Bytes, began: Instant) {
        self.state.borrow_mut().begin((client, request, began));
    }

    /// Says more on the call in both directions that began as number `call` (from 0) on this connection.
    pub fn say(&self, call: usize, message: Bytes) -> Result<()> {
        self.state.borrow_mut().say(call as u32 * 2 + 1, &message)
    }

    /// Sends what the socket takes now; whoever runs [`Calls::poll`] is woken for the rest.
    pub fn flush(&self) -> Result<()> {
        let mut state = self.state.borrow_mut();
        if !state.write(&self.write)?
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
        Ok(())
    }

    /// How many calls have not ended.
    pub fn under_way(&self) -> usize {
        let state = self.state.borrow();
        state.open + state.held.len()
    }

    /// Reads and writes until it would have to wait; ready only with an error.
    pub fn poll(&self, cx: &mut Context<'_>, listener: &mut impl Listener) -> Poll<Result<()>> {
        match self.turn(cx, listener) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn turn(&self, cx: &mut Context<'_>, listener: &mut impl Listener) -> Result<()> {
        let (mut read, mut state) = (self.read.borrow_mut(), self.state.borrow_mut());
        loop {
            let State { input, filled, .. } = &mut *state;
            let mut buffer = ReadBuf::new(&mut input[*filled..]);
            let polled = Pin::new(&mut *read).poll_read(cx, &mut buffer);
            let taken = buffer.filled().len();
            match polled {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            ensure!(taken > 0, "the server closed the connection");
            state.filled += taken;
            state.handle(listener)?;
            state.write(&self.write)?;
        }
        while !state.write(&self.write)? {
            if self.write.as_ref().poll_write_ready(cx)?.is_pending() {
                break;
            }
        }
        state.waker = Some(cx.waker().clone());
        Ok(())
    }
}

struct State {
    out: Vec<u8>,
    sent: usize,
    input: Box<[u8]>,
    filled: usize,
    /// The headers of the first call, which fill the peer's table, and those of all others, which name its places.
    headers: [Vec<u8>; 2],
    next_stream: u32,
    /// The calls of the streams `oldest`, `oldest + 2` and so on; `None` for those that have ended.
    calls: VecDeque<Option<Call>>,
    oldest: u32,
    open: usize,
    streams_max: usize,
    held: VecDeque<Held>,
    window: i64,
    stream_window: i64,
    /// Bytes that came on this connection and that the server was not yet given new room for.
    taken: u32,
    stays_open: bool,
    waker: Option<Waker>,
}

impl State {
    fn new(endpoint: &str, method: Method) -> Self {
        let mut state = Self {
            out: PREFACE.to_vec(),
            sent: 0,
            input: vec![0; READ_BYTES].into(),
            filled: 0,
            headers: headers(endpoint, method),
            next_stream: 1,
            calls: VecDeque::new(),
            oldest: 1,
            open: 0,
            streams_max: usize::MAX,
            held: VecDeque::new(),
            window: WINDOW_DEFAULT,
            stream_window: WINDOW_DEFAULT,
            taken: 0,
            stays_open: matches!(method, Method::Watch | Method::LeaseKeepAlive),
            waker: None,
        };
        let mut settings = SETTING_WINDOW.to_be_bytes().to_vec();
        settings.extend(STREAM_WINDOW_BYTES.to_be_bytes());
        state.frame(kind::SETTINGS, 0, 0, &settings);
        state.frame(kind::WINDOW_UPDATE, 0, 0, &(CONNECTION_WINDOW_BYTES - WINDOW_DEFAULT as u32).to_be_bytes());
        state
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    fn begin(&mut self, call: Held) {
        let bytes = call.1.len() as i64;
        assert!(call.1.len() <= FRAME_BYTES_MAX, "a prepared request fits into one frame");
        if !self.held.is_empty() || self.open >= self.streams_max || bytes > self.window.min(self.stream_window) {
            self.held.push_back(call);
            return;
        }
        let (client, request, began) = call;
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = std::mem::take(&mut self.headers[usize::from(stream > 1)]);
        self.frame(kind::HEADERS, END_HEADERS, stream, &headers);
        self.headers[usize::from(stream > 1)] = headers;
        self.frame(kind::DATA, if self.stays_open { 0 } else { END_STREAM }, stream, &request);
        self.window -= bytes;
        self.open += 1;
        let window = self.stream_window - bytes;
        let call = Call { client, began, partial: Vec::new(), answered: false, taken: 0, window };
        self.calls.push_back(Some(call));
    }

    fn say(&mut self, stream: u32, message: &[u8]) -> Result<()> {
        let bytes = message.len() as i64;
        let call = self.call(stream)?;
        call.window -= bytes;
        let room = call.window;
        self.window -= bytes;
        // Each client waits for an answer before it says more, and the server has read by then what it answers.
        ensure!(room.min(self.window) >= 0, "the server gives no room on stream {stream}");
        self.frame(kind::DATA, 0, stream, message);
        Ok(())
    }

    /// Begins what was held and has room now.
    fn release(&mut self) {
        for _ in 0..self.held.len() {
            let Some(call) = self.held.pop_front() else { return };
            let rest = std::mem::take(&mut self.held);
            self.begin(call);
            let blocked = !self.held.is_empty();
            self.held.extend(rest);
            if blocked {
                return;
            }
        }
    }

    /// Writes what the socket takes; false if something is left.
    fn write(&mut self, to: &OwnedWriteHalf) -> Result<bool> {
        while self.sent < self.out.len() {
            match to.try_write(&self.out[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Handles every whole frame that was read.
    fn handle(&mut self, listener: &mut impl Listener) -> Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut data = &input[..self.filled];
        while let Some((head, rest)) = data.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let len = u32::from_be_bytes([0, a, b, c]) as usize;
            ensure!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes");
            let Some((payload, rest)) = rest.split_at_checked(len) else { break };
            self.one(kind, flags, u32::from_be_bytes(stream) & 0x7fff_ffff, payload, listener)?;
            data = rest;
        }
        let left = data.len();
        let from = self.filled - left;
        self.input = input;
        self.input.copy_within(from..self.filled, 0);
        self.filled = left;
        if self.taken > CONNECTION_WINDOW_BYTES / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.frame(kind::WINDOW_UPDATE, 0, 0, &taken.to_be_bytes());
        }
        Ok(())
    }

    fn one(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], listener: &mut impl Listener) -> Result<()> {
        match kind {
            kind::DATA => {
                ensure!(flags & PADDED == 0, "a padded frame");
                self.taken += payload.len() as u32;
                self.data(stream, payload, listener)?;
            }
            kind::HEADERS => {}
            kind::SETTINGS if flags & ACK == 0 => self.settings(payload)?,
            kind::PING if flags & ACK == 0 => self.frame(kind::PING, ACK, 0, payload),
            kind::WINDOW_UPDATE => {
                let more = u32::from_be_bytes(payload.try_into()?) & 0x7fff_ffff;
                if stream == 0 {
                    self.window += i64::from(more);
                    self.release();
                } else if let Ok(call) = self.call(stream) {
                    call.window += i64::from(more);
                }
            }
            // Go's server closes so, behind the trailers, a stream whose end it had not read when it answered.
            kind::RST_STREAM if payload == NO_ERROR && self.call(stream).is_err() => {}
            kind::RST_STREAM => bail!("the server reset a stream: {payload:?}"),
            kind::GOAWAY => bail!("the server said GOAWAY: {:?}", String::from_utf8_lossy(payload)),
            _ => {}
        }
        if matches!(kind, kind::DATA | kind::HEADERS) && flags & END_STREAM != 0 {
            self.end(stream, listener)?;
        }
        Ok(())
    }

    fn data(&mut self, stream: u32, payload: &[u8], listener: &mut impl Listener) -> Result<()> {
        let stays_open = self.stays_open;
        let call = self.call(stream)?;
        let client = call.client;
        let held = std::mem::take(&mut call.partial);
        let joined = if held.is_empty() { None } else { Some([&held[..], payload].concat()) };
        let mut data = joined.as_deref().unwrap_or(payload);
        ensure!(data.len() <= ANSWER_BYTES_MAX, "a message without end");
        call.taken += payload.len() as u32;
        let taken = call.taken;
        if stays_open && taken > STREAM_WINDOW_BYTES / 2 {
            call.taken = 0;
            self.frame(kind::WINDOW_UPDATE, 0, stream, &taken.to_be_bytes());
        }
        while let Some((message, rest)) = split_message(data)? {
            let call = self.call(stream)?;
            ensure!(stays_open || !call.answered && rest.is_empty(), "{} bytes after the message", rest.len());
            call.answered = true;
            if let Some(next) = listener.message(client, message)? {
                self.say(stream, &next)?;
            }
            data = rest;
        }
        if !data.is_empty() {
            let data = data.to_vec();
            self.call(stream)?.partial = data;
        }
        Ok(())
    }

    fn call(&mut self, stream: u32) -> Result<&mut Call> {
        let place = stream.checked_sub(self.oldest).map(|distance| distance as usize / 2);
        let call = place.and_then(|place| self.calls.get_mut(place)).and_then(Option::as_mut);
        call.with_context(|| format!("stream {stream} is not open"))
    }

    fn end(&mut self, stream: u32, listener: &mut impl Listener) -> Result<()> {
        ensure!(!self.stays_open, "the server ended stream {stream}");
        let call = self.call(stream)?;
        ensure!(call.answered, REFUSED);
        let (client, began) = (call.client, call.began);
        self.calls[(stream - self.oldest) as usize / 2] = None;
        while let Some(None) = self.calls.front() {
            self.calls.pop_front();
            self.oldest += 2;
        }
        self.open -= 1;
        self.release();
        if let Some((request, began)) = listener.done(client, began) {
            self.begin((client, request, began));
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<()> {
        for setting in payload.chunks_exact(6) {
            let (name, value) = setting.split_at(2);
            let value = u32::from_be_bytes(value.try_into().expect("four bytes"));
            match u16::from_be_bytes(name.try_into().expect("two bytes")) {
                SETTING_TABLE_BYTES => ensure!(value >= TABLE_BYTES, "a header table of {value} bytes"),
                SETTING_STREAMS_MAX => self.streams_max = value as usize,
                SETTING_WINDOW => {
                    // RFC 9113, 6.9.2: the difference is for streams that are open already, too.
                    let more = i64::from(value) - self.stream_window;
                    self.stream_window += more;
                    self.calls.iter_mut().flatten().for_each(|call| call.window += more);
                }
                _ => {}
            }
        }
        self.frame(kind::SETTINGS, ACK, 0, &[]);
        self.release();
        Ok(())
    }
}

/// The text of an error without words: the words are in headers that are not decoded.
pub const REFUSED: &str = "a call ended without an answer";

/// What the four headers that are indexed take in the peer's table, at the most.
const TABLE_BYTES: u32 = 512;

/// The headers of the first call and of the others, compressed as RFC 7541 has it: two from the static table, four that
/// the first call adds to the peer's table (type 01) and the others name (type 1), the newest having the number 62.
fn headers(endpoint: &str, method: Method) -> [Vec<u8>; 2] {
    const METHOD_POST: u8 = 0x80 | 3;
    const SCHEME_HTTP: u8 = 0x80 | 6;
    let (path, authority, content_type) = (0x40 | 4, 0x40 | 1, 0x40 | 31);
    let mut first = vec![METHOD_POST, SCHEME_HTTP];
    let mut text = |head: &[u8], text: &str| {
        first.extend_from_slice(head);
        first.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text"));
        first.extend_from_slice(text.as_bytes());
    };
    text(&[path], method.path());
    text(&[authority], endpoint);
    text(&[content_type], "application/grpc");
    text(&[0x40, 2, b't', b'e'], "trailers");
    [first, vec![METHOD_POST, SCHEME_HTTP, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]]
}

/// The first gRPC message without its head, and what follows; `None` if it is not whole.
fn split_message(data: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    let Some((head, body)) = data.split_first_chunk::<GRPC_HEAD_BYTES>() else { return Ok(None) };
    ensure!(head[0] == 0, "a compressed message");
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    Ok(body.split_at_checked(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears answers; the client sends `again` more requests.
    #[derive(Default)]
    struct Heard {
        messages: Vec<(usize, Vec<u8>)>,
        done: Vec<usize>,
        again: usize,
    }

    impl Listener for Heard {
        fn message(&mut self, client: usize, message: &[u8]) -> Result<Option<Bytes>> {
            self.messages.push((client, message.to_vec()));
            Ok((message == [b'?']).then(|| Bytes::from_static(b"more")))
        }

        fn done(&mut self, client: usize, began: Instant) -> Option<(Bytes, Instant)> {
            self.done.push(client);
            self.again = self.again.checked_sub(1)?;
            Some((Bytes::from_static(b"again"), began))
        }
    }

    fn state() -> State {
        let mut state = State::new("127.0.0.1:1", Method::Put);
        state.out.clear();
        state
    }

    fn begin(state: &mut State, client: usize) {
        state.begin((client, Bytes::from_static(b"request"), Instant::now()));
    }

    /// What a peer sends: frames of (kind, flags, stream, payload).
    fn receive(state: &mut State, heard: &mut Heard, frames: &[(u8, u8, u32, &[u8])], cut: usize) -> Result<()> {
        let mut peer = self::state();
        frames.iter().for_each(|(kind, flags, stream, payload)| peer.frame(*kind, *flags, *stream, payload));
        for piece in peer.out.chunks(cut) {
            state.input[state.filled..state.filled + piece.len()].copy_from_slice(piece);
            state.filled += piece.len();
            state.handle(heard)?;
        }
        Ok(())
    }

    const ANSWER: [u8; 7] = [0, 0, 0, 0, 2, 8, 9];

    #[test]
    fn answers_find_their_clients_however_they_are_cut() {
        for cut in [1, 3, 10, 1_000] {
            let (mut state, mut heard) = (state(), Heard { again: 1, ..Default::default() });
            (0..3).for_each(|client| begin(&mut state, client));
            let frames = [
                (kind::HEADERS, END_HEADERS, 3, &b"h"[..]),
                (kind::DATA, 0, 3, &ANSWER[..6]),
                (kind::DATA, 0, 1, &ANSWER[..]),
                (kind::DATA, 0, 3, &ANSWER[6..]),
                (kind::HEADERS, END_STREAM | END_HEADERS, 3, &b"t"[..]),
                (kind::HEADERS, END_STREAM | END_HEADERS, 1, &b"t"[..]),
            ];
            receive(&mut state, &mut heard, &frames, cut).expect("well-formed");
            assert_eq!(heard.messages, [(0, vec![8, 9]), (1, vec![8, 9])]);
            assert_eq!(heard.done, [1, 0]);
            assert_eq!((state.open, state.oldest, state.next_stream), (2, 5, 9), "one client went on, one still waits");
        }
    }

    #[test]
    fn an_error_is_not_taken_for_an_answer() {
        let (mut state, mut heard) = (state(), Heard::default());
        begin(&mut state, 0);
        let only_trailers = [(kind::HEADERS, END_STREAM | END_HEADERS, 1, &b"t"[..])];
        let error = receive(&mut state, &mut heard, &only_trailers, 100).expect_err("no message came");
        assert_eq!(error.to_string(), REFUSED);
        for bad in [kind::RST_STREAM, kind::GOAWAY] {
            receive(&mut self::state(), &mut heard, &[(bad, 0, 0, &[0; 8])], 100).expect_err("the end");
        }
        receive(&mut self::state(), &mut heard, &[(kind::DATA, 0, 1, &ANSWER)], 100).expect_err("no such stream");
        assert!(heard.done.is_empty());
    }

    #[test]
    fn a_stream_may_be_reset_without_an_error_once_it_is_answered() {
        let answered = [
            (kind::HEADERS, END_HEADERS, 1, &b"h"[..]),
            (kind::DATA, 0, 1, &ANSWER[..]),
            (kind::HEADERS, END_STREAM | END_HEADERS, 1, &b"t"[..]),
        ];
        for (answer, code, good) in [(true, 0, true), (true, 2, false), (false, 0, false)] {
            let (mut state, mut heard) = (state(), Heard::default());
            begin(&mut state, 0);
            receive(&mut state, &mut heard, &answered[..if answer { 3 } else { 0 }], 100).expect("well-formed");
            let result = receive(&mut state, &mut heard, &[(kind::RST_STREAM, 0, 1, &[0, 0, 0, code])], 100);
            assert_eq!(result.is_ok(), good, "answered {answer}, code {code}: {result:?}");
        }
    }

    #[test]
    fn a_stream_in_both_directions_carries_many_messages() {
        for cut in [1, 4, 1_000] {
            let mut state = State::new("127.0.0.1:1", Method::Watch);
            let mut heard = Heard::default();
            begin(&mut state, 7);
            state.out.clear();
            let two = [&ANSWER[..], &[0, 0, 0, 0, 1, b'?', 0, 0]].concat();
            let frames = [(kind::DATA, 0, 1, &two[..]), (kind::DATA, 0, 1, &[0, 0, 1, 5][..])];
            receive(&mut state, &mut heard, &frames, cut).expect("well-formed");
            assert_eq!(heard.messages, [(7, vec![8, 9]), (7, vec![b'?']), (7, vec![5])]);
            assert!(state.out.ends_with(b"more"), "the client answered on its stream");
            let end = [(kind::HEADERS, END_STREAM, 1, &b"t"[..])];
            receive(&mut state, &mut heard, &end, cut).expect_err("a watch does not end by itself");
        }
    }

    #[test]
    fn windows_and_the_limit_of_streams_hold_calls_back() {
        let (mut state, mut heard) = (state(), Heard::default());
        let settings = [0, 3, 0, 0, 0, 2];
        receive(&mut state, &mut heard, &[(kind::SETTINGS, 0, 0, &settings)], 100).expect("well-formed");
        assert_eq!(state.out[3..5], [kind::SETTINGS, ACK]);
        (0..3).for_each(|client| begin(&mut state, client));
        assert_eq!((state.open, state.held.len()), (2, 1));
        assert_eq!(state.calls[0].as_ref().map(|call| call.window), Some(WINDOW_DEFAULT - 7));
        receive(&mut state, &mut heard, &[(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])], 100).expect("well-formed");
        assert_eq!(state.calls[0].as_ref().map(|call| call.window), Some(65_536 - 7), "open streams get their share");
        let end = [(kind::DATA, 0, 1, &ANSWER[..]), (kind::HEADERS, END_STREAM, 1, &b"t"[..])];
        receive(&mut state, &mut heard, &end, 100).expect("well-formed");
        assert_eq!((state.open, state.held.len()), (2, 0), "the held one took the place");

        let (mut state, mut heard) = (self::state(), Heard::default());
        state.window = 10;
        (0..3).for_each(|client| begin(&mut state, client));
        assert_eq!((state.open, state.held.len(), state.window), (1, 2, 3));
        receive(&mut state, &mut heard, &[(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 4])], 100).expect("well-formed");
        assert_eq!((state.open, state.held.len(), state.window), (2, 1, 0));
        receive(&mut state, &mut heard, &[(kind::PING, 0, 0, &[7; 8])], 100).expect("well-formed");
        assert!(state.out.ends_with(&[7; 8]), "pings are answered");
    }

    #[test]
    fn headers_are_full_once_and_short_then() {
        let (mut state, mut lens) = (state(), Vec::new());
        for client in 0..3 {
            let before = state.out.len();
            begin(&mut state, client);
            lens.push(state.out.len() - before);
        }
        assert!(lens[0] > 80 && lens[1] == 9 + 6 + 9 + 7 && lens[2] == lens[1], "{lens:?}");
    }
}
