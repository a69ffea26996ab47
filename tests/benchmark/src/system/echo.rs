//! The ceiling: this program again, as a server that does nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use futures::future::{FutureExt as _, LocalBoxFuture};
use raftlog_load::Bare;

use super::{Clients, Cluster, Description, Kind, Place, System, connect_each, shared};
use crate::{
    failure::Failure,
    server::{Program, Servers, Voice},
    wait,
};

const SERVICE: u16 = 0;

/// Its program.
pub(crate) struct Echo {
    program: PathBuf,
    description: Description,
}

impl Echo {
    /// This program.
    pub(crate) fn find() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
        Ok(Self {
            program,
            description: Description {
                system: Kind::Echo,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                operation: "SubmitClientRequest, a bare gRPC call".to_owned(),
                durability: "none: one server answers at once and keeps nothing",
                executor: "none".to_owned(),
            },
        })
    }
}

impl System for Echo {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn start<'a>(&'a self, place: Place<'a>) -> LocalBoxFuture<'a, Result<Box<dyn Cluster>, Failure>> {
        async move {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place.port(SERVICE, 1)));
            let arguments = ["serve-echo".to_owned(), address.to_string()];
            let program = Program::new("echo".to_owned(), &self.program, arguments, Voice::Log);
            let mut servers = Servers::start(&[program], place.folder)?;
            wait::until("the echo to answer", &mut servers, async || {
                Bare::connect(address).await.map_err(|error| error.to_string())
            })
            .await?;
            Ok(Box::new(Running { address, servers }) as Box<dyn Cluster>)
        }
        .boxed_local()
    }
}

struct Running {
    address: SocketAddr,
    servers: Servers,
}

impl Cluster for Running {
    fn servers(&mut self) -> &mut Servers {
        &mut self.servers
    }

    fn connect(&self, connections: u16, clients: u16) -> LocalBoxFuture<'_, Result<Clients, Failure>> {
        let connect = async |_, &address: &SocketAddr| {
            let bare = Bare::connect(address).await;
            bare.map_err(|error| format!("the echo at {address}: {error}"))
        };
        let targets = std::slice::from_ref(&self.address);
        connect_each(targets, shared(connections, clients), connect).boxed_local()
    }
}
