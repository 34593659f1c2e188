//! The relay and its peers: keys, new or derived from a secret, and addresses inside the tunnel.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::hmac::{HMAC_SHA256, Key, sign};

use super::keys::{Keys, decode, encode, random_key};
use crate::failure::{Failure, while_doing};
use crate::options::Family;

/// Mode of a file that only its owner can read.
const PRIVATE: u32 = 0o600;

/// End of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Source of the packets.
    Sender,
    /// Destination of the packets.
    Receiver,
}

/// Address inside the tunnel of an end of pair number `pair`.
pub fn inner_address(role: Role, pair: usize, family: Family) -> IpAddr {
    let number = u32::try_from(pair).expect("the options limit it") + 1;
    let (v4, v6) = if role == Role::Sender { (80, 1) } else { (96, 2) };
    match family {
        Family::V4 => Ipv4Addr::from_bits(u32::from_be_bytes([10, v4, 0, 0]) + number).into(),
        Family::V6 => {
            let [high, low] = [number >> 16, number].map(|half| half as u16); // truncates
            Ipv6Addr::new(0xfd77, 0, 0, v6, 0, 0, high, low).into()
        }
    }
}

/// Both ends of every pair, senders and receivers alternating.
fn ends(pairs: usize) -> impl Iterator<Item = (Role, usize)> {
    (0..pairs).flat_map(|pair| [Role::Sender, Role::Receiver].map(|role| (role, pair)))
}

/// Keys of the relay and its peers, and the peers' addresses.
pub struct Peers {
    /// The relay's.
    pub relay: Keys,
    /// The peers'. In pairs, senders have even numbers, receivers odd ones.
    pub ends: Vec<(Keys, IpAddr)>,
}

impl Peers {
    /// New keys for pairs.
    pub fn new(pairs: usize, family: Family) -> Peers {
        let end = |(role, pair)| (Keys::new(), inner_address(role, pair, family));
        Peers { relay: Keys::new(), ends: ends(pairs).map(end).collect() }
    }

    /// Public key and address of every peer.
    pub fn entries(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.ends.iter().map(|(keys, address)| (keys.public.as_str(), *address))
    }
}

/// The secret from which the keys of the same peers are derived in every run: 32 bytes, in the file
/// as base64, as `wg genkey` writes a key.
pub struct Seed(Key);

impl Seed {
    /// Reads the secret in `path`, which must be readable by its owner only.
    pub fn read(path: &Path) -> Result<Seed, Failure> {
        let name = path.display();
        let wrong = |why: &str| Failure::step(format!("--keys {name}: {why}"));
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => wrong("no such file; --remote-config creates it"),
            _ => wrong(&error.to_string()),
        })?;
        let metadata = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(wrong(&format!("readable by others; run `chmod 600 {name}`")));
        }
        let secret = decode(text.trim());
        let secret = secret.ok_or_else(|| wrong("not a key as `wg genkey` prints it"))?;
        Ok(Seed(Key::new(HMAC_SHA256, &secret)))
    }

    /// Reads the secret in `path`, or creates the file with a new one.
    pub fn read_or_create(path: &Path) -> Result<Seed, Failure> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(PRIVATE).open(path);
        let created = file.and_then(|mut file| {
            writeln!(file, "{}", encode(&random_key()))?;
            file.sync_all()
        });
        match created {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(while_doing(format!("cannot write --keys {}", path.display()))(error))
            }
            _ => Seed::read(path),
        }
    }

    /// Both ends of `pairs` pairs, senders and receivers alternating, with their addresses.
    pub fn ends(&self, pairs: usize, family: Family) -> Vec<(Keys, IpAddr)> {
        ends(pairs)
            .map(|(role, pair)| (self.keys(role, pair), inner_address(role, pair, family)))
            .collect()
    }

    /// The peers of `pairs` pairs with their addresses of both families, for `wg addconf`.
    pub fn sections(&self, pairs: usize) -> String {
        let section = |(role, pair)| {
            let [v4, v6] = [Family::V4, Family::V6].map(|it| inner_address(role, pair, it));
            let public = self.keys(role, pair).public;
            format!("\n[Peer]\nPublicKey = {public}\nAllowedIPs = {v4}/32, {v6}/128\n")
        };
        ends(pairs).map(section).collect()
    }

    fn keys(&self, role: Role, pair: usize) -> Keys {
        let role = if role == Role::Sender { "sender" } else { "receiver" };
        let made = sign(&self.0, format!("wg-bounce-perf {role} {pair}").as_bytes());
        Keys::of(&made.as_ref().try_into().expect("32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_addresses_of_their_own() {
        let text = |role, pair, family| inner_address(role, pair, family).to_string();
        assert_eq!(text(Role::Sender, 0, Family::V4), "10.80.0.1");
        assert_eq!(text(Role::Receiver, 1000, Family::V4), "10.96.3.233");
        assert_eq!(text(Role::Sender, 0xffff, Family::V6), "fd77::1:0:0:1:0");
    }

    #[test]
    fn keys_stay_the_same_and_are_all_different() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let text = Seed::read_or_create(&path).expect("made").sections(4);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        assert_eq!(Seed::read_or_create(&path).expect("there").sections(4), text);
        assert!(Seed::read(&path).expect("there").sections(5).starts_with(&text));
        let mut keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("PublicKey = ")).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 8);
        assert!(text.contains("AllowedIPs = 10.96.0.4/32, fd77:0:0:2::4/128"), "{text}");
    }

    #[test]
    fn only_a_private_file_with_a_secret_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let why = || Seed::read(&path).err().expect("refused").to_string();
        assert!(why().contains("--remote-config creates it"), "{}", why());
        fs::write(&path, "no secret").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(why().contains("chmod 600"), "{}", why());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(why().contains("wg genkey"), "{}", why());
    }
}
