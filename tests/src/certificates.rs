//! Certificates for tests, made with the `openssl` command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{process, wait};

const SOON: Duration = Duration::from_secs(20);

/// A certificate authority in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    name: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one; its certificate is `NAME.crt` in `folder`.
    ///
    /// # Errors
    /// When `openssl` is not there or fails.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let this = Self { folder: folder.to_owned(), name: name.to_owned() };
        openssl(
            folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.crt"
            ),
        )?;
        Ok(this)
    }

    /// Its certificate.
    pub fn cert(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }

    /// Signs a certificate with these subject alternative names (`DNS:..., IP:..., URI:..., email:...`).
    ///
    /// # Errors
    /// When `openssl` fails.
    pub fn sign(&self, file: &str, names: &str) -> Result<Certificate> {
        let (folder, ca) = (&self.folder, &self.name);
        openssl(
            folder,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={file} -keyout {file}.key -out {file}.csr"
            ),
        )?;
        std::fs::write(folder.join("names"), format!("subjectAltName={names}\n"))?;
        openssl(
            folder,
            &format!(
                "x509 -req -in {file}.csr -CA {ca}.crt -CAkey {ca}.key -CAcreateserial -days 30 -extfile names -out {file}.crt"
            ),
        )?;
        Ok(Certificate {
            cert: folder.join(format!("{file}.crt")),
            key: folder.join(format!("{file}.key")),
        })
    }
}

fn openssl(folder: &Path, arguments: &str) -> Result<()> {
    let mut command = process::command("openssl");
    command.args(arguments.split_whitespace()).current_dir(folder);
    let output = wait::output_within(&mut command, SOON)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "openssl {arguments}: {told}");
    Ok(())
}
