//! How this member connects to others.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ferrite_tls::{Client, Info};

use super::socket::Socket;
use crate::config::Url;

/// Where connections to other members come from, and their TLS. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Via {
    from: Option<IpAddr>,
    tls: Arc<Tls>,
}

#[derive(Debug, Default)]
struct Tls {
    info: Info,
    /// Made when it is needed, if it is of nothing but the authorities of the system.
    client: OnceLock<Client>,
}

impl Via {
    /// From an address of this machine, if that is given, and with these certificates.
    ///
    /// # Errors
    /// Any of the files.
    pub fn new(from: Option<IpAddr>, info: Info) -> Result<Self, ferrite_tls::Error> {
        let client = OnceLock::new();
        if !info.is_empty() || info.trusted_ca_file.is_some() {
            // Nobody else sets it.
            let _first = client.set(info.client(&[])?);
        }
        Ok(Self {
            from,
            tls: Arc::new(Tls { info, client }),
        })
    }

    /// Connects to a peer URL.
    ///
    /// # Errors
    /// Those of the system, of resolving a name, and of TLS.
    pub(super) async fn connect(&self, url: &Url) -> io::Result<Socket> {
        let tls = match url.scheme().is_tls() {
            true => Some(self.client()?),
            false => None,
        };
        Socket::connect(url, self.from, tls).await
    }

    fn client(&self) -> io::Result<&Client> {
        let Tls { info, client } = &*self.tls;
        if let Some(client) = client.get() {
            return Ok(client);
        }
        let made = info.client(&[]).map_err(io::Error::other)?;
        Ok(client.get_or_init(|| made))
    }
}
