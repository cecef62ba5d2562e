//! One run's connection: the flags made into a client, and the client's errors into etcdctl's words.

use crate::call::Call;
use crate::cli::environment;
use crate::exit::{BAD_ARGS, BAD_CONNECTION, ERROR, Exit};
use crate::log;
use crate::output::complain;
use crate::password;
use crate::printers::{Printer, Reply};
use crate::program::Program;
use mechi_client::{Client, Code, Config, Error, Tls};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

/// A client and all that a command needs beside it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
    pub(crate) program: Arc<Program>,
}

impl Session {
    /// Reads the environment, then the flags, and makes the client; with a user it connects at once.
    pub(crate) async fn open(call: &mut Call) -> Result<Self, Exit> {
        call.read_environment()?;
        let printer = call.printer();
        let config = config(call)?;
        // etcdctl looks at the output's format last.
        let printer = printer?;
        Self::with(call, config, printer).await
    }

    async fn with(call: &Call, config: Config, printer: Printer) -> Result<Self, Exit> {
        let has_user = config.credentials.is_some();
        let timeout = call.flags.duration("command-timeout");
        let config = config.request_timeout(timeout);
        let program = call.program.clone();
        let lazy = Client::lazy(config.clone()).map_err(|error| Exit::new(BAD_CONNECTION, words(&error)))?;
        let client = if has_user {
            // A name or a password that is wrong is told apart from what the command itself meets.
            match Client::connect(config).await {
                Ok(client) => client,
                Err(error @ Error::Server(_)) => {
                    log::about_call(&program, &lazy.endpoints().join(","), &status(&error));
                    return Err(Exit::new(BAD_CONNECTION, words(&error)));
                }
                Err(_) => lazy,
            }
        } else {
            lazy
        };
        Ok(Self { client, printer, program })
    }

    /// A session with one endpoint alone.
    pub(crate) fn at(&self, endpoint: &str) -> Result<Self, Exit> {
        let address = address(endpoint, self.client.config().tls.is_some());
        let client = self.client.at(&address).map_err(|error| Exit::new(BAD_CONNECTION, words(&error)))?;
        Ok(Self { client, ..self.clone() })
    }

    /// Clients that share no connection, without a bound on time.
    pub(crate) fn others(&self, count: usize) -> Result<Vec<Client>, Exit> {
        let config = self.client.config().clone().request_timeout(None);
        let client = || Client::lazy(config.clone()).map_err(|error| Exit::new(BAD_CONNECTION, words(&error)));
        (0..count).map(|_| client()).collect()
    }

    /// The client without a bound on time.
    pub(crate) fn patient(&self) -> Client {
        self.client.with_timeout(None)
    }

    /// Waits for an answer; a failure is logged, and returned in etcdctl's words.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        call.await.map_err(|error| {
            log::about_call(&self.program, &self.client.endpoints().join(","), &status(&error));
            self.words(&error)
        })
    }

    /// The same for commands that end at a failure with the plain code.
    pub(crate) async fn done<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Exit> {
        self.ask(call).await.map_err(|why| Exit::new(ERROR, why))
    }

    /// Prints a reply in the chosen format.
    pub(crate) fn print(&self, reply: &Reply) -> Result<(), Exit> {
        self.printer.print(reply)
    }

    /// An error in etcdctl's words; to a person that does not know etcdctl it says what became of a write.
    pub(crate) fn words(&self, error: &Error) -> String {
        let text = words(error);
        match error {
            _ if self.program.is_etcdctl() => text,
            Error::OutcomeUnknown { .. } => format!("{text}; the write may or may not have been done"),
            Error::Unavailable { last } => format!("no endpoint was reached, nothing was sent: {last}"),
            Error::Deadline { last: Some(last) } => format!("{text}; {last}"),
            _ => text,
        }
    }
}

/// The configuration that the flags make; asks for a password if there is a user without one.
fn config(call: &Call) -> Result<Config, Exit> {
    let flags = &call.flags;
    if flags.on("debug") {
        for flag in environment::inherited(&call.path) {
            complain(&format!("{}={}", environment::variable(flag.name), flags.printed(flag.name)));
        }
    }
    if !flags.text("discovery-srv").is_empty() {
        let why = "discovery by SRV records is not supported: name the endpoints with --endpoints";
        return Err(Exit::new(ERROR, why));
    }
    let endpoints: Vec<String> = flags.list("endpoints").iter().map(|word| word.trim().to_owned()).collect();
    let tls = tls(call)?;
    let credentials = credentials(call)?;
    if endpoints.is_empty() {
        return Err(Exit::new(BAD_CONNECTION, "etcdclient: no available endpoints"));
    }
    let is_watch = call.path.last().is_some_and(|command| command.name == "watch");
    let mut config = Config::new(endpoints.iter().map(|endpoint| address(endpoint, tls.is_some())))
        .dial_timeout(flags.duration("dial-timeout"))
        .keep_alive(flags.duration("keepalive-time"), flags.duration("keepalive-timeout"));
    config.tls = tls;
    if is_watch {
        // A member that has lost its leader would leave the watch without a word.
        config = config.require_leader();
    }
    if let Some((user, password)) = credentials {
        config = config.credentials(user, password);
    }
    Ok(config)
}

/// With certificates, an address without a scheme is a secure one.
fn address(endpoint: &str, is_secure: bool) -> String {
    if is_secure && !endpoint.contains("://") { format!("https://{endpoint}") } else { endpoint.to_owned() }
}

fn tls(call: &Call) -> Result<Option<Tls>, Exit> {
    let flags = &call.flags;
    for name in ["cert", "key", "cacert"] {
        if flags.text(name).is_empty() && flags.changed(name) {
            return Err(Exit::new(BAD_ARGS, format!("empty string is passed to --{name} option")));
        }
    }
    let (cert, key, ca) = (flags.text("cert"), flags.text("key"), flags.text("cacert"));
    let is_secure = !flags.on("insecure-transport") || [cert, key, ca].iter().any(|path| !path.is_empty());
    let has_secure_endpoint = flags.list("endpoints").iter().any(|word| word.trim().starts_with("https://"));
    if flags.on("insecure-skip-tls-verify") && (is_secure || has_secure_endpoint) {
        let why = "--insecure-skip-tls-verify is not supported: \
                   trust the server's own certificate with --cacert instead, which is as short and is safe";
        return Err(Exit::new(BAD_ARGS, why));
    }
    if !is_secure {
        return Ok(None);
    }
    if cert.is_empty() != key.is_empty() {
        let why = format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
        return Err(Exit::new(BAD_ARGS, why));
    }
    let mut tls = Tls::default();
    if !cert.is_empty() {
        tls = tls.identity(read(cert)?, read(key)?);
    }
    if !ca.is_empty() {
        tls.ca = Some(read(ca)?.into());
    }
    Ok(Some(tls))
}

fn read(path: &str) -> Result<Vec<u8>, Exit> {
    std::fs::read(Path::new(path)).map_err(|error| {
        // Go names the system's error without its number, and in small letters.
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        Exit::new(BAD_ARGS, format!("open {path}: {text}"))
    })
}

fn credentials(call: &Call) -> Result<Option<(String, String)>, Exit> {
    let (user, password) = (call.flags.text("user"), call.flags.text("password"));
    Ok(match (user.split_once(':'), password) {
        _ if user.is_empty() => None,
        (Some((user, password)), "") => Some((user.into(), password.into())),
        (None, "") => {
            let given = password::ask("Password: ").map_err(|why| Exit::new(ERROR, why))?;
            Some((user.into(), given))
        }
        (_, password) => Some((user.into(), password.into())),
    })
}

/// An error as `Error()` of etcd's client prints it.
pub(crate) fn words(error: &Error) -> String {
    match error {
        Error::Server(refused) if refused.message.starts_with("etcdserver: ") => refused.message.clone(),
        Error::OutcomeUnknown { cause } => words(cause),
        // etcd's client waits for an endpoint until its time is over.
        Error::Deadline { .. } | Error::Unavailable { .. } => "context deadline exceeded".into(),
        Error::Config(why) => why.clone(),
        other => status(other),
    }
}

/// An error as gRPC prints it.
fn status(error: &Error) -> String {
    let (code, text) = match error {
        Error::Server(refused) => (refused.code, refused.message.clone()),
        Error::OutcomeUnknown { cause } => return status(cause),
        Error::Deadline { last: Some(last) } => match &**last {
            Error::Unavailable { last } => (Code::DeadlineExceeded, no_connection(last)),
            other => (Code::DeadlineExceeded, format!("latest balancer error: {other}")),
        },
        Error::Deadline { last: None } => (Code::DeadlineExceeded, "context deadline exceeded".into()),
        Error::Unavailable { last } => (Code::DeadlineExceeded, no_connection(last)),
        Error::Broken { detail, .. } => (Code::Unavailable, detail.clone()),
        other => (Code::Unknown, other.to_string()),
    };
    format!("rpc error: code = {code:?} desc = {text}")
}

fn no_connection(last: &str) -> String {
    format!("latest balancer error: last connection error: connection error: desc = \"transport: {last}\"")
}
