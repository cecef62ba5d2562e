//! `member`: lists and changes the members.

use crate::call::Call;
use crate::exit::{ERROR, Exit, bad_args};
use crate::go::number::parse_uint;
use crate::go::quote::quote;
use crate::output::say;
use crate::printers::{Format, Reply};
use crate::session::Session;
use mechi_client::pb::MemberAddResponse;

pub(super) async fn add(call: &mut Call) -> Result<(), Exit> {
    let name = match call.args() {
        [] => return Err(bad_args("member name not provided")),
        [_] => call.text(0),
        many => {
            let texts = many.iter().map(|word| String::from_utf8_lossy(word));
            let hints: String = texts
                .filter(|text| text.to_lowercase().starts_with("http"))
                .map(|text| format!(", did you mean --peer-urls={text}"))
                .collect();
            return Err(bad_args(format!("too many arguments{hints}")));
        }
    };
    let given = call.flags.text("peer-urls").to_owned();
    if given.is_empty() {
        return Err(bad_args("member peer urls not provided"));
    }
    let urls: Vec<String> = given.split(',').map(str::to_owned).collect();
    let session = Session::open(call).await?;
    check_urls(&urls)?;
    let response = session.done(session.client.member_add(urls, call.flags.on("learner"))).await?;
    session.print(&Reply::MemberAdd(response.clone()))?;
    if session.printer.format == Format::Simple {
        say!("{}", hint(&name, &given, &response));
    }
    Ok(())
}

/// What the new member's environment must be.
fn hint(name: &str, urls: &str, response: &MemberAddResponse) -> String {
    let id = response.member.as_ref().map(|member| member.id);
    let mut cluster = Vec::new();
    for member in &response.members {
        let name = if Some(member.id) == id { name } else { &member.name };
        cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
    }
    let [name, cluster, urls] = [name, &cluster.join(","), urls].map(|text| quote(text.as_bytes()));
    format!(
        "\nETCD_NAME={name}\nETCD_INITIAL_CLUSTER={cluster}\nETCD_INITIAL_ADVERTISE_PEER_URLS={urls}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\""
    )
}

pub(super) async fn remove(call: &mut Call) -> Result<(), Exit> {
    let id = id(call)?;
    let session = Session::open(call).await?;
    let response = session.done(session.client.member_remove(id)).await?;
    session.print(&Reply::MemberRemove(id, response))
}

pub(super) async fn update(call: &mut Call) -> Result<(), Exit> {
    let id = id(call)?;
    if call.flags.text("peer-urls").is_empty() {
        return Err(bad_args("member peer urls not provided"));
    }
    let urls: Vec<String> = call.flags.text("peer-urls").split(',').map(str::to_owned).collect();
    let session = Session::open(call).await?;
    check_urls(&urls)?;
    let response = session.done(session.client.member_update(id, urls)).await?;
    session.print(&Reply::MemberUpdate(id, response))
}

pub(super) async fn list(call: &mut Call) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let response = session.done(session.client.member_list(true)).await?;
    session.print(&Reply::MemberList(response))
}

pub(super) async fn promote(call: &mut Call) -> Result<(), Exit> {
    let id = id(call)?;
    let session = Session::open(call).await?;
    let response = session.done(session.client.member_promote(id)).await?;
    session.print(&Reply::MemberPromote(id, response))
}

fn id(call: &Call) -> Result<u64, Exit> {
    if call.args().len() != 1 {
        return Err(bad_args("member ID is not provided"));
    }
    parse_uint(&call.text(0), 16).map_err(|why| bad_args(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

/// Refuses what etcd's client does not even send.
fn check_urls(urls: &[String]) -> Result<(), Exit> {
    for url in urls.iter().map(|url| url.trim()) {
        let scheme = ["http://", "https://", "unix://", "unixs://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let why = match scheme {
            None => "URL scheme must be http, https, unix, or unixs:",
            Some(rest) => {
                let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                match host.rsplit_once(':') {
                    Some(_) if path.is_empty() => continue,
                    Some(_) => "URL must not contain a path:",
                    None => "URL address does not have the form \"host:port\":",
                }
            }
        };
        return Err(Exit::new(ERROR, format!("{why} {url}")));
    }
    Ok(())
}
