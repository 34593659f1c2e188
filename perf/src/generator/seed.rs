//! Keys of peers that stay the same from run to run: all are made from one secret in a file.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use ring::hmac::{HMAC_SHA256, Key, sign};

use super::network::{Role, inner_address};
use super::peer::{Keys, Randomness, decode, encode};
use crate::failure::{Failure, while_doing};
use crate::star::Family;

/// Rights of a file that only its owner reads.
const PRIVATE: u32 = 0o600;

/// The secret: 32 bytes, in the file as base64, as `wg genkey` writes a key.
pub struct Seed(Key);

impl Seed {
    /// Reads the secret in `path`, which nobody else may read.
    pub fn read(path: &Path) -> Result<Seed, Failure> {
        let name = path.display();
        let reading = || while_doing(format!("--keys {name}"));
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Failure::step(format!("--keys {name}: no such file; --remote-config makes it"))
            }
            _ => reading()(error),
        })?;
        let mode = fs::metadata(path).map_err(reading())?.permissions().mode();
        if mode & 0o077 != 0 {
            let why = format!("--keys {name}: others may read it; `chmod 600 {name}`");
            return Err(Failure::step(why));
        }
        let secret = decode(text.trim()).ok_or_else(|| {
            Failure::step(format!("--keys {name}: not a secret as `wg genkey` writes it"))
        })?;
        Ok(Seed(Key::new(HMAC_SHA256, &secret)))
    }

    /// The same; makes a new secret if there is no such file.
    pub fn read_or_make(path: &Path) -> Result<Seed, Failure> {
        let made = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path);
        match made {
            Ok(mut file) => {
                let secret = encode(&Randomness::open()?.key()?);
                let written = writeln!(file, "{secret}").and_then(|()| file.sync_all());
                written.map_err(while_doing(format!("writing --keys {}", path.display())))?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(while_doing(format!("--keys {}", path.display()))(error)),
        }
        Seed::read(path)
    }

    /// Both ends of so many pairs, senders and receivers by turns, with their addresses.
    pub fn ends(&self, pairs: usize, family: Family) -> Vec<(Keys, IpAddr)> {
        let roles = [Role::Sender, Role::Receiver];
        let ends = (0..pairs).flat_map(|pair| roles.map(|role| (role, pair)));
        ends.map(|(role, pair)| (self.keys(role, pair), inner_address(role, pair, family)))
            .collect()
    }

    /// What `wg addconf` takes: both ends of so many pairs, with their addresses of both families.
    pub fn sections(&self, pairs: usize) -> String {
        let section = |((keys, v4), (_, v6)): ((Keys, IpAddr), (Keys, IpAddr))| {
            let public = keys.public;
            format!("\n[Peer]\nPublicKey = {public}\nAllowedIPs = {v4}/32, {v6}/128\n")
        };
        let v4 = self.ends(pairs, Family::V4).into_iter();
        v4.zip(self.ends(pairs, Family::V6)).map(section).collect()
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
    fn keys_stay_the_same_and_are_all_different() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let text = Seed::read_or_make(&path).expect("made").sections(4);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        assert_eq!(Seed::read_or_make(&path).expect("there").sections(4), text);
        assert!(Seed::read(&path).expect("there").sections(5).starts_with(&text));
        let mut keys: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("PublicKey = ")).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 8);
        assert!(text.contains("AllowedIPs = 10.96.0.4/32, fd77:0:0:2::4/128"), "{text}");
    }

    #[test]
    fn what_is_no_private_file_with_a_secret_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let why = || Seed::read(&path).err().expect("refused").to_string();
        assert!(why().contains("--remote-config makes it"), "{}", why());
        fs::write(&path, "no secret").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(why().contains("chmod 600"), "{}", why());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(why().contains("wg genkey"), "{}", why());
    }
}
