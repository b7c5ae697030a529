//! The certificates between the API server and the kubelet API of this machine.
//!
//! The API server makes its own serving certificate and accounts; what is missing on one machine is an identity
//! it shows to the node's kubelet API when it fetches logs or opens a shell there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct KubeletClient {
    /// Authority the kubelet API trusts.
    pub ca: PathBuf,
    /// What the API server shows.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl KubeletClient {
    /// The files below the folder of keys.
    pub fn paths(pki: &Path) -> Self {
        let file = |name: &str| pki.join(name);
        Self {
            ca: file("kubelet-client-ca.crt"),
            cert: file("kubelet-client.crt"),
            key: file("kubelet-client.key"),
        }
    }

    /// Makes the files unless they are there.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn ensure(&self) -> Result<(), String> {
        if self.ca.exists() && self.cert.exists() && self.key.exists() {
            return Ok(());
        }
        let (ca, cert, key) =
            generate().map_err(|error| format!("cannot make a certificate: {error}"))?;
        for (path, text, mode) in
            [(&self.ca, ca, 0o644), (&self.cert, cert, 0o644), (&self.key, key, 0o600)]
        {
            write(path, &text, mode)
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// Authority, certificate and key, each PEM. The authority's own key is thrown away: it signs nothing else.
fn generate() -> Result<(String, String, String), rcgen::Error> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name = name("flotilla-kubelet-client-ca", None);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = KeyPair::generate()?;
    let ca_cert = ca.self_signed(&ca_key)?;
    let mut client = CertificateParams::default();
    client.distinguished_name = name("kube-apiserver-kubelet-client", Some("system:masters"));
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let cert = client.signed_by(&key, &Issuer::new(ca, ca_key))?;
    Ok((ca_cert.pem(), cert.pem(), key.serialize_pem()))
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_once_and_the_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = KubeletClient::paths(dir.path());
        files.ensure().unwrap();
        let first = fs::read(&files.cert).unwrap();
        files.ensure().unwrap();
        assert_eq!(fs::read(&files.cert).unwrap(), first);
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
