//! `watch`: prints events until the server ends the watch, and runs a program for each if asked to.

use super::execute::{command, ended, not_started};
use super::watch_args::{FromEnvironment, Words, of_command_line, of_line};
use crate::call::Call;
use crate::cli::flags::Flags;
use crate::exit::{BAD_ARGS, ERROR, Exit, INTERRUPTED, INVALID_INPUT, bad_args};
use crate::go::quote::quote;
use crate::go::scan::words;
use crate::limits::LINE_BYTES_MAX;
use crate::output::{complain, say};
use crate::printers::{Format, Reply};
use crate::session::Session;
use mechi_client::pb::{WatchCreateRequest, WatchResponse};
use mechi_client::proto::mvccpb::Event;
use mechi_client::proto::mvccpb::event::EventType;
use mechi_client::{Batch, Error, Watch, WatchOptions, prefix_end};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

const CANCELED: &str = "watch is canceled by the server";

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let variable = |name: &str| call.variables.get(name).cloned().unwrap_or_default().into_bytes();
    let env = FromEnvironment { key: variable("ETCDCTL_WATCH_KEY"), end: variable("ETCDCTL_WATCH_RANGE_END") };
    if env.key.is_empty() && !env.end.is_empty() {
        let end = quote(&env.end);
        return Err(bad_args(format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}")));
    }
    if call.flags.on("interactive") {
        return interactive(call, &env).await;
    }
    let words = of_command_line(&call.words, call.args(), &env).map_err(bad_args)?;
    let session = Session::open(call).await?;
    let options = options(&words.keys, &call.flags).map_err(bad_args)?;
    follow(&session, open(&session, options).await?, &words.command).await?;
    Err(Exit::new(INTERRUPTED, CANCELED))
}

/// Reads watches from lines, and prints all their events; ends with the lines.
async fn interactive(call: &mut Call, env: &FromEnvironment) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let mut input = BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        let end = |why: String| Exit::new(INVALID_INPUT, format!("error reading watch request line: {why}"));
        let mut bounded = (&mut input).take(LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut line).await.map_err(|error| end(error.to_string()))?;
        if line.pop() != Some(b'\n') {
            return Err(end("EOF".into()));
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let parsed = words(&line).map_err(|why| Exit::new(INVALID_INPUT, why))?;
        match parsed.first().map(Vec::as_slice) {
            None => complain(&format!("Invalid command: {line} (watch and progress supported)")),
            Some(b"watch") if parsed.len() < 2 && env.key.is_empty() => {
                complain(&format!("Invalid command {line} (command type or key is not provided)"));
            }
            Some(b"watch") => {
                let (Words { keys, command }, flags) = of_line(&parsed, env).map_err(bad_args)?;
                match options(&keys, &flags) {
                    Ok(options) => {
                        let session = session.clone();
                        // Opened before the next line is read: a `progress` there means this watch too.
                        let watch = open(&session, options).await?;
                        tokio::spawn(async move {
                            if let Err(Exit { code, message }) = follow(&session, watch, &command).await {
                                // Nobody waits for this task: the program ends here, as it would in the foreground.
                                message.iter().for_each(|message| complain(&format!("Error: {message}")));
                                std::process::exit(code.into());
                            }
                        });
                    }
                    Err(why) => complain(&format!("Invalid command {line} ({why})")),
                }
            }
            Some(b"progress") => session.done(session.client.watch_progress()).await?,
            Some(_) => complain(&format!("Invalid command {line} (only support watch)")),
        }
    }
}

fn options(keys: &[Vec<u8>], flags: &Flags) -> Result<WatchOptions, String> {
    let prefix = flags.on("prefix");
    let (key, end) = match keys {
        [] => return Err("bad number of arguments".into()),
        [_, _] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive".into()),
        [key, end] => (key.clone(), end.clone()),
        [key, ..] if prefix && key.is_empty() => (b"\0".to_vec(), b"\0".to_vec()),
        [key, ..] if prefix => (key.clone(), prefix_end(key).to_vec()),
        [key, ..] => (key.clone(), Vec::new()),
    };
    Ok(WatchOptions::from(WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        start_revision: flags.number("rev"),
        prev_kv: flags.on("prev-kv"),
        progress_notify: flags.on("progress-notify"),
        ..WatchCreateRequest::default()
    }))
}

async fn open(session: &Session, options: WatchOptions) -> Result<Watch, Exit> {
    match session.patient().watch(options).await {
        Ok(watch) => Ok(watch),
        Err(error @ (Error::WatchCompacted { .. } | Error::WatchCanceled { .. })) => {
            canceled(session, &error).await?;
            Err(Exit::new(INTERRUPTED, CANCELED))
        }
        Err(error) => Err(Exit::new(BAD_ARGS, session.words(&error))),
    }
}

/// Prints a watch's events until the server ends it.
async fn follow(session: &Session, mut watch: Watch, command: &[Vec<u8>]) -> Result<(), Exit> {
    while let Some(batch) = watch.next().await {
        match batch {
            Ok(batch) => print(session, &batch, command).await?,
            Err(error) => return canceled(session, &error).await,
        }
    }
    Ok(())
}

async fn print(session: &Session, batch: &Batch, command: &[Vec<u8>]) -> Result<(), Exit> {
    if batch.is_progress() {
        say!("progress notify: {}", batch.revision());
    }
    session.print(&Reply::Watch(batch.0.clone()))?;
    for event in batch.events() {
        if let Some((program, args)) = command.split_first() {
            execute(program, args, event, batch.revision()).await?;
        }
    }
    Ok(())
}

/// Says why the server has ended the watch, and prints its last answer.
async fn canceled(session: &Session, error: &Error) -> Result<(), Exit> {
    let (reason, compact_revision) = match error {
        Error::WatchCompacted { compact_revision } => {
            ("etcdserver: mvcc: required revision has been compacted".to_owned(), *compact_revision)
        }
        Error::WatchCanceled { reason } => (reason.clone(), 0),
        other => (session.words(other), 0),
    };
    complain(&format!("watch was canceled ({reason})"));
    let mut last = WatchResponse { canceled: true, compact_revision, ..WatchResponse::default() };
    if session.printer.format != Format::Simple {
        // Who has ended it is in the last answer's header; it says no revision.
        let header = session.client.status().await.ok().and_then(|status| status.header);
        last.header = header.map(|header| mechi_client::pb::ResponseHeader { revision: 0, ..header });
    }
    session.print(&Reply::Watch(last))
}

/// Runs a program that can see the event.
async fn execute(program: &[u8], args: &[Vec<u8>], event: &Event, revision: i64) -> Result<(), Exit> {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" };
    let ran = command(program, args)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .status()
        .await;
    let why = match ran {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => ended(status),
        Err(error) => not_started(program, &error),
    };
    let words: Vec<String> = std::iter::once(program).chain(args.iter().map(Vec::as_slice)).map(quote).collect();
    complain(&format!("command [{}] error ({why})", words.join(" ")));
    Err(Exit::silent(ERROR))
}
