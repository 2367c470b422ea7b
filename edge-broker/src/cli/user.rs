//! `edge-broker user add|remove|list`

use std::io::{BufRead as _, IsTerminal as _};

use edge_auth::scram::{ScramHash, ScramVerifier};
use edge_auth::secret::{RANDOM_BYTES, Verifier, generated_secret};
use edge_auth::{AccessFile, AccessFileError, User};
use edge_config::Config;
use serde::Serialize;

use crate::access_args::{UserAddArgs, UserCommand};
use crate::access_store::{AccessStore, AccessStoreError, anonymous_of};
use crate::cli::output::{print, print_json, tell};
use crate::cli::table::table;
use crate::cli::{Failure, load_config};

impl From<AccessStoreError> for Failure {
    fn from(error: AccessStoreError) -> Self {
        match error {
            AccessStoreError::Content { .. } | AccessStoreError::NoPlace { .. } => {
                Self::Usage(error.to_string())
            }
            AccessStoreError::Io { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<AccessFileError> for Failure {
    fn from(error: AccessFileError) -> Self {
        Self::Usage(error.to_string())
    }
}

pub(super) fn run(command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => add(args),
        UserCommand::Remove(args) => {
            let store = AccessStore::of_gateway(&load_config(&args.layers)?)?;
            let rules = store.change(|file| {
                file.remove_user(&args.name)
                    .ok_or_else(|| Failure::Failed(format!("there is no user `{}`", args.name)))
            })?;
            if args.json {
                return print_json(&Removed { removed: &args.name, rules });
            }
            print(&format!("removed {} and {rules} rules about it", args.name))
        }
        UserCommand::List(args) => {
            list(&AccessStore::of_gateway(&load_config(&args.layers)?)?, args.json)
        }
    }
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
    rules: usize,
}

#[derive(Serialize)]
struct Added<'a> {
    added: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

fn add(args: &UserAddArgs) -> Result<(), Failure> {
    let config = load_config(&args.layers)?;
    let store = AccessStore::of_gateway(&config)?;
    if store.load()?.users().iter().any(|user| user.name == args.name) && !args.replace {
        return Err(Failure::Usage(format!(
            "there is a user `{}` already; --replace gives it a new password",
            args.name
        )));
    }
    let generated = if args.generate { Some(generated_secret(&random()?)) } else { None };
    let password = match &generated {
        Some(secret) => secret.clone().into_bytes(),
        None => password()?,
    };
    let secret = match &generated {
        Some(secret) => Verifier::of_generated(secret, &random()?),
        None => Verifier::of_password(&password, &random()?)
            .map_err(|error| Failure::Usage(error.to_string()))?,
    };
    let mut scram = Vec::new();
    if args.scram {
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            scram.push(ScramVerifier::of_password(hash, &password, &random()?[..16]));
        }
    }
    let user = User { name: args.name.clone(), secret, scram };
    store.change(|file| {
        if args.replace {
            file.replace_user(user)?;
        } else {
            file.add_user(user)?;
        }
        Ok::<_, Failure>(())
    })?;
    warn_of_lockout(&config, &store.load()?);
    let secret = generated.as_deref();
    if args.json {
        return print_json(&Added { added: &args.name, secret });
    }
    match secret {
        // The secret alone on standard output, so that it can be handed on.
        Some(secret) => {
            tell(&format!("added {}; its secret, shown once:", args.name));
            print(secret)
        }
        None => print(&format!("added {}", args.name)),
    }
}

/// Tells who changes users or rules that nobody is let in any more.
pub(super) fn warn_of_lockout(config: &Config, file: &AccessFile) {
    if let Some(why) = file.lockout(anonymous_of(config)) {
        tell(&format!("warning: {why}"));
    }
}

/// The first line of standard input: a password on the command line would be in every process list.
fn password() -> Result<Vec<u8>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        tell("type the password (it is shown) and press Enter, or use --generate");
    }
    let mut line = Vec::new();
    stdin
        .lock()
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::Failed(format!("cannot read the password: {error}")))?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

fn random() -> Result<[u8; RANDOM_BYTES], Failure> {
    crate::random::bytes().map_err(|error| Failure::Failed(format!("no random numbers: {error}")))
}

#[derive(Serialize)]
struct Listed {
    user: String,
    secret: &'static str,
    scram: bool,
    rules: usize,
}

fn list(store: &AccessStore, json: bool) -> Result<(), Failure> {
    let file = store.load()?;
    let listed: Vec<Listed> = file
        .users()
        .iter()
        .map(|user| {
            let who = edge_auth::Who::User(user.name.clone());
            Listed {
                user: user.name.clone(),
                secret: if user.secret.is_cheap() { "generated" } else { "password" },
                scram: !user.scram.is_empty(),
                rules: file.rules().iter().filter(|rule| rule.who == who).count(),
            }
        })
        .collect();
    if json {
        return print_json(&listed);
    }
    let row = |user: &Listed| {
        let scram = if user.scram { "yes" } else { "no" };
        vec![user.user.clone(), user.secret.to_owned(), scram.to_owned(), user.rules.to_string()]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    print(&table(&["user", "secret", "scram", "rules"], &rows))
}
