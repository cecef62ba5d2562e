//! Who a data directory belongs to: a small file, written once, behind the first durable segment of the log.

use anyhow::{Context, Result, bail};
use mechi_replica::disk::{self, Disk};

/// The file's path below the data directory.
pub const PATH: &str = "member/identity";

const MAGIC: &[u8; 8] = b"MECHI-ID";
const FORMAT: u32 = 1;

/// Whose data this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
    /// The token that the cluster was started with.
    pub token: String,
    /// The members that the cluster began with, ascending.
    pub voters: Vec<u64>,
}

impl Identity {
    /// Encodes it; docs/formats.md has the byte table.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
        out.extend_from_slice(&self.member_id.to_le_bytes());
        out.extend_from_slice(&(self.token.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.voters.len() as u32).to_le_bytes());
        out.extend_from_slice(self.token.as_bytes());
        for voter in &self.voters {
            out.extend_from_slice(&voter.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads it; errors: a sentence that says what is wrong with the file.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else { bail!("it is empty") };
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) || body.len() < 40 || &body[..8] != MAGIC {
            bail!("it is damaged, or not an identity file");
        }
        let u32_at = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != FORMAT {
            bail!("its format {} is not known to this version", u32_at(8));
        }
        let (token, voters) = (u32_at(32) as usize, u32_at(36) as usize);
        let Some((token, ids)) = body[40..].split_at_checked(token) else { bail!("its token is cut") };
        if ids.len() != voters * 8 {
            bail!("its list of members is cut");
        }
        Ok(Self {
            cluster_id: u64_at(16),
            member_id: u64_at(24),
            token: String::from_utf8(token.to_vec()).context("its token is not text")?,
            voters: ids.chunks_exact(8).map(|id| u64::from_le_bytes(id.try_into().expect("eight bytes"))).collect(),
        })
    }

    /// Reads the identity of a data directory; `None` if it has none yet.
    pub fn load<D: Disk>(disk: &D) -> Result<Option<Self>> {
        match disk::read(disk, PATH) {
            Ok(bytes) => Self::decode(&bytes).with_context(|| format!("read {PATH}")).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read the identity"),
        }
    }

    /// Writes the identity; durable when it returns.
    pub fn store<D: Disk>(&self, disk: &D) -> Result<()> {
        disk::write_atomic(disk, PATH, &self.encode()).context("write the identity")
    }

    /// Checks that a data directory with the identity `found` is this member's.
    ///
    /// - Errors: a sentence that names both and says what to do.
    pub fn check(&self, found: &Self, directory: &str) -> Result<()> {
        if found.cluster_id != self.cluster_id {
            bail!(
                "data directory {directory} belongs to cluster {:x} (token {:?}), not to cluster {:x} (token {:?}): \
                 give this member its own --data-dir, or the cluster's own --initial-cluster-token and members",
                found.cluster_id,
                found.token,
                self.cluster_id,
                self.token
            );
        }
        if found.member_id != self.member_id {
            bail!(
                "data directory {directory} belongs to member {:x}, not to member {:x}: \
                 two members must never share one, since each vote counts once",
                found.member_id,
                self.member_id
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_every_flipped_bit_is_found() {
        let identity = Identity { cluster_id: 1, member_id: 2, token: "etcd-cluster".into(), voters: vec![2, 3] };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes).unwrap(), identity);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&bad).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_cluster_or_member_is_refused() {
        let own = Identity { cluster_id: 1, member_id: 2, token: "t".into(), voters: vec![2] };
        let cluster = Identity { cluster_id: 9, ..own.clone() };
        let member = Identity { member_id: 9, ..own.clone() };
        assert!(own.check(&own.clone(), "d").is_ok());
        assert!(own.check(&cluster, "d").unwrap_err().to_string().contains("belongs to cluster 9"));
        assert!(own.check(&member, "d").unwrap_err().to_string().contains("belongs to member 9"));
    }
}
