//! `edge-broker client list|kick`: what a running gateway knows of its MQTT clients.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::cli::Failure;
use crate::cli::output::{print, print_json};
use crate::cli::table::table;
use crate::client_args::ClientCommand;
use crate::control_socket::{Ask, Client, Kicked, ask};

pub(super) fn run(command: &ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::List(args) => {
            let clients: Vec<Client> = asked(&args.data_dir, &Ask::Clients)?;
            if args.json { print_json(&clients) } else { print(&to_text(&clients)) }
        }
        ClientCommand::Kick(args) => {
            let ask = Ask::Kick { client: args.client.clone() };
            let kicked: Kicked = asked(&args.data_dir, &ask)?;
            if kicked.kicked == 0 {
                return Err(Failure::Failed(format!("no client `{}` is connected", args.client)));
            }
            if args.json { print_json(&kicked) } else { print(&format!("ended {}", args.client)) }
        }
    }
}

fn asked<T: DeserializeOwned>(dir: &Path, question: &Ask) -> Result<T, Failure> {
    let shown = dir.display();
    let answer = ask(dir, question).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Failure::Usage(format!("{shown}: there is no data directory; name one with --data-dir"))
        }
        ErrorKind::PermissionDenied => {
            Failure::Usage(format!("{shown}: {error}; ask as the user that the gateway runs as"))
        }
        _ => Failure::Failed(format!("{shown}: the gateway does not answer: {error}")),
    })?;
    answer.ok_or_else(|| {
        Failure::Failed(format!("{shown}: the gateway does not run; nobody is connected"))
    })
}

fn to_text(clients: &[Client]) -> String {
    let rows: Vec<Vec<String>> = clients
        .iter()
        .map(|client| {
            let certificate = client.certificate.first().map(|name| format!("cert:{name}"));
            vec![
                client.client.clone(),
                client.user.clone().or(certificate).unwrap_or_else(|| "-".to_owned()),
                client.address.to_string(),
                client.transport.clone(),
                format!("{} s", client.connected_s),
            ]
        })
        .collect();
    table(&["client", "user", "address", "over", "connected"], &rows)
}
