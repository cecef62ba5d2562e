//! How the store is reached.

use anyhow::{Context as _, Result};
use clap::Args;
use mechi_client::{Client, Config, Tls};
use mechi_controller::kv::Etcd;
use std::path::{Path, PathBuf};

/// Where the store is, and how it is trusted.
#[derive(Args, Clone, Debug)]
pub(crate) struct Store {
    /// Where its members listen, one after the other: host:port, http://host:port or https://host:port
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379", value_name = "URL,...")]
    endpoints: Vec<String>,
    /// A file with the certificates that are trusted for https
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// A file with this client's certificate, for members that ask for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A file with the key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// A user of the store
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// A file with that user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

impl Store {
    /// A store on this machine, without certificates.
    pub(crate) fn local(port: u16) -> Self {
        let endpoints = vec![format!("127.0.0.1:{port}")];
        Self { endpoints, cacert: None, cert: None, key: None, user: None, password_file: None }
    }

    /// A client of it, which connects when it is first needed and again whenever it must. Each has a connection of its own.
    ///
    /// - Errors: an endpoint or a file that cannot be read.
    pub(crate) fn open(&self) -> Result<Etcd> {
        let mut config = Config::new(self.endpoints.clone()).require_leader();
        if self.cacert.is_some() || self.cert.is_some() {
            let mut tls = Tls::default();
            if let Some(path) = &self.cacert {
                tls = Tls::ca(read(path)?);
            }
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                tls = tls.identity(read(cert)?, read(key)?);
            }
            config = config.tls(tls);
        }
        if let (Some(user), Some(path)) = (&self.user, &self.password_file) {
            let password = String::from_utf8(read(path)?).context("the password is not text")?;
            config = config.credentials(user.as_str(), password.trim_end_matches(['\r', '\n']));
        }
        Ok(Etcd::new(Client::lazy(config)?))
    }
}
