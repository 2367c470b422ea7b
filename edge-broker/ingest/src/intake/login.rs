//! Who a client is: what it gave in CONNECT, its certificate, and where it comes from.

use edge_auth::{Credentials, Identity, Login};
use edge_mqtt::{Connect, ReasonCode};

use super::{Blocked, Intake};
use crate::stats::count;

impl Intake {
    /// `None`: the password has to be hashed first.
    pub(super) fn log_in(
        &mut self,
        connect: &Connect<'_>,
        client_id: &str,
    ) -> Result<Option<Identity>, ReasonCode> {
        let identity = match self.login.take() {
            Some(checked) => checked.ok_or("wrong user name or password"),
            None => {
                let given = Credentials {
                    user: connect.username,
                    password: connect.password,
                    certificate: &self.certificate,
                    client_id,
                    is_local: self.is_local,
                };
                match self.access.login(&given) {
                    Login::Granted(identity) => Ok(identity),
                    Login::Refused { reason } => Err(reason),
                    Login::Check(check) => {
                        self.blocked = Some(Blocked::Login(check));
                        return Ok(None);
                    }
                }
            }
        };
        identity.map(Some).map_err(|reason| {
            count(&self.shared.stats.logins_refused, 1);
            tracing::info!(client = client_id, user = connect.username, reason, "login refused");
            match connect.username {
                Some(_) => ReasonCode::BadUserNameOrPassword,
                None => ReasonCode::NotAuthorized,
            }
        })
    }
}
