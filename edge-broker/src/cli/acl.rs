//! `edge-broker acl add|remove|list|test`

use edge_auth::{Access, Anonymous, Decision, Rule, Who};
use edge_mqtt::topic_filter::{validate_filter, validate_topic};
use serde::Serialize;

use crate::access_args::{AclCommand, AclRuleArgs, AclTestArgs};
use crate::access_store::AccessStore;
use crate::cli::output::{print, print_json};
use crate::cli::table::table;
use crate::cli::user::warn_of_lockout;
use crate::cli::{Failure, load_config};

pub(super) fn run(command: &AclCommand) -> Result<(), Failure> {
    match command {
        AclCommand::Add(args) => add(args),
        AclCommand::Remove(args) => remove(args),
        AclCommand::List(args) => {
            list(&AccessStore::of_gateway(&load_config(&args.layers)?)?, args.json)
        }
        AclCommand::Test(args) => test(args),
    }
}

fn rule(args: &AclRuleArgs) -> Result<Rule, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let who: Who = args.who.parse().map_err(|error| usage(&error))?;
    let effect = args.effect.parse().map_err(|error| usage(&error))?;
    let action = args.action.parse().map_err(|error| usage(&error))?;
    Rule::new(who, effect, action, &args.filter).map_err(|error| usage(&error))
}

fn add(args: &AclRuleArgs) -> Result<(), Failure> {
    let rule = rule(args)?;
    let config = load_config(&args.layers)?;
    let store = AccessStore::of_gateway(&config)?;
    let is_known = store.change(|file| {
        let is_known = match &rule.who {
            Who::User(name) => file.users().iter().any(|user| user.name == *name),
            _ => true,
        };
        file.add_rule(rule.clone())?;
        Ok::<_, Failure>(is_known)
    })?;
    if !is_known {
        crate::cli::output::tell(&format!("there is no {} yet; the rule waits for it", rule.who));
    }
    warn_of_lockout(&config, &store.load()?);
    if args.json { print_json(&rule) } else { print(&format!("added: {rule}")) }
}

fn remove(args: &AclRuleArgs) -> Result<(), Failure> {
    let rule = rule(args)?;
    let config = load_config(&args.layers)?;
    let store = AccessStore::of_gateway(&config)?;
    store.change(|file| match file.remove_rule(&rule) {
        true => Ok(()),
        false => Err(Failure::Failed(format!("there is no rule: {rule}"))),
    })?;
    warn_of_lockout(&config, &store.load()?);
    if args.json { print_json(&rule) } else { print(&format!("removed: {rule}")) }
}

fn list(store: &AccessStore, json: bool) -> Result<(), Failure> {
    let file = store.load()?;
    if json {
        return print_json(&file.rules());
    }
    let row = |rule: &Rule| {
        vec![
            rule.who.to_string(),
            rule.effect.to_string(),
            rule.action.to_string(),
            rule.filter.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = file.rules().iter().map(row).collect();
    print(&table(&["who", "effect", "action", "filter"], &rows))
}

#[derive(Serialize)]
struct Tested {
    allowed: bool,
    reason: String,
}

/// Exit code 0: allowed; 1: denied. The rule that decided is printed.
fn test(args: &AclTestArgs) -> Result<(), Failure> {
    let config = load_config(&args.layers)?;
    let who: Who = args.who.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let file = AccessStore::of_gateway(&config)?.load()?;
    // How anonymous clients connect is another question than what they may do.
    let access = Access::new(file, Anonymous::Always, [0; 32]);
    let mut identity = who.identity();
    if let Some(client) = &args.client {
        identity.client_id = client.as_str().into();
    }
    let bad = |error: &dyn std::fmt::Display| Failure::Usage(format!("{:?}: {error}", args.topic));
    let decision = match args.action.as_str() {
        "publish" => {
            validate_topic(&args.topic).map_err(|error| bad(&error))?;
            access.topic(&identity, edge_auth::Action::Publish, &args.topic)
        }
        "subscribe" => {
            validate_filter(&args.topic).map_err(|error| bad(&error))?;
            access.filter(&identity, &args.topic)
        }
        other => {
            return Err(Failure::Usage(format!("`{other}` is neither publish nor subscribe")));
        }
    };
    let reason = match decision {
        Decision::Allowed(rule) | Decision::Denied(rule) => rule.to_string(),
        Decision::Open => "there are no users and no rules yet".to_owned(),
        Decision::NoRule => "no rule allows it".to_owned(),
    };
    let allowed = decision.is_allowed();
    let word = if allowed { "allowed" } else { "denied" };
    if args.json {
        print_json(&Tested { allowed, reason })?;
    } else {
        print(&format!("{word}: {reason}"))?;
    }
    if allowed { Ok(()) } else { Err(Failure::Told) }
}
