//! The command line of `user` and `acl`.

use clap::{Args, Subcommand};

use crate::args::LayerArgs;

/// `user ...`
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; the password is the first line of standard input
    Add(UserAddArgs),
    /// Remove a user and the rules about it
    Remove(UserRemoveArgs),
    /// List all users
    List(AccessListArgs),
}

/// `user add`
#[derive(Debug, Args)]
pub(crate) struct UserAddArgs {
    /// Its name
    pub(crate) name: String,
    /// Make a random secret and print it, once
    #[arg(long)]
    pub(crate) generate: bool,
    /// Also keep what SASL/SCRAM needs, for Kafka clients
    #[arg(long)]
    pub(crate) scram: bool,
    /// Give a user that exists a new password
    #[arg(long)]
    pub(crate) replace: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
}

/// `user remove`
#[derive(Debug, Args)]
pub(crate) struct UserRemoveArgs {
    /// Its name
    pub(crate) name: String,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
}

/// `user list`, `acl list`
#[derive(Debug, Args)]
pub(crate) struct AccessListArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
}

/// `acl ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AclCommand {
    /// Add a rule; deny beats allow, what no rule allows is denied
    Add(AclRuleArgs),
    /// Remove exactly this rule
    Remove(AclRuleArgs),
    /// List all rules
    List(AccessListArgs),
    /// Say whether somebody may, and by which rule; exit code 0: allowed, 1: denied
    Test(AclTestArgs),
}

/// `acl add`, `acl remove`
#[derive(Debug, Args)]
pub(crate) struct AclRuleArgs {
    /// user:NAME (or NAME), client:ID, cert:NAME, anonymous, all
    pub(crate) who: String,
    /// allow or deny
    pub(crate) effect: String,
    /// publish or subscribe
    pub(crate) action: String,
    /// MQTT topic filter; %u stands for the user, %c for the client id
    pub(crate) filter: String,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
}

/// `acl test`
#[derive(Debug, Args)]
pub(crate) struct AclTestArgs {
    /// user:NAME (or NAME), client:ID, cert:NAME, anonymous
    pub(crate) who: String,
    /// publish or subscribe
    pub(crate) action: String,
    /// MQTT topic, or the filter of a subscription
    pub(crate) topic: String,
    /// The client id, for rules with %c
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) layers: LayerArgs,
}
