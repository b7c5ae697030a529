//! The folder of certificates: what is missing is made.
//!
//! `ca.crt`/`ca.key` and `sa.key` are made once. The serving certificate is signed anew at every start, so that
//! changed names take effect. `admin.kubeconfig` and `tokens.csv` hold the administrator's token; the kubeconfig
//! is written at every start because the port may change.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use thiserror::Error;

/// Why certificates could not be made.
#[derive(Debug, Error)]
pub enum CertError {
    /// A file cannot be read or written.
    #[error("cannot use {path} in --cert-dir: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A name cannot be in a certificate, or a key is broken.
    #[error("cannot make a certificate in --cert-dir: {0}")]
    Make(#[from] rcgen::Error),
}

/// The files of a folder of certificates.
#[derive(Debug, Clone)]
pub struct Certs {
    dir: PathBuf,
    /// PEM of the authority.
    pub ca: String,
    /// The administrator's bearer token.
    pub admin_token: String,
}

impl Certs {
    /// Makes what is missing in `dir`; the serving certificate is valid for `names` beside the usual ones.
    ///
    /// # Errors
    /// When a file cannot be read or written, or a name cannot be in a certificate.
    pub fn prepare(dir: &Path, names: &[String]) -> Result<Self, CertError> {
        fs::create_dir_all(dir)
            .map_err(|source| CertError::File { path: dir.to_owned(), source })?;
        let ca_key = key(&dir.join("ca.key"))?;
        let ca_path = dir.join("ca.crt");
        if !ca_path.exists() {
            write(&ca_path, ca_params()?.self_signed(&ca_key)?.pem().as_bytes(), 0o644)?;
        }
        let ca = read(&ca_path)?;
        key(&dir.join("sa.key"))?;
        let serving_key = key(&dir.join("apiserver.key"))?;
        let issuer = Issuer::new(ca_params()?, ca_key);
        let serving = serving_params(names)?.signed_by(&serving_key, &issuer)?;
        write(&dir.join("apiserver.crt"), format!("{}{ca}", serving.pem()).as_bytes(), 0o644)?;
        let admin_token = admin_token(&dir.join("tokens.csv"))?;
        Ok(Self { dir: dir.to_owned(), ca, admin_token })
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes `admin.kubeconfig` for a server at `address`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, address: SocketAddr) -> Result<PathBuf, CertError> {
        let host = match address.ip() {
            ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        };
        let server = SocketAddr::new(host, address.port());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: flotilla\nclusters:\n- name: flotilla\n  cluster:\n    \
             server: https://{server}\n    certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    \
             token: {}\ncontexts:\n- name: flotilla\n  context:\n    cluster: flotilla\n    user: admin\n",
            STANDARD.encode(&self.ca),
            self.admin_token
        );
        let path = self.path("admin.kubeconfig");
        write(&path, text.as_bytes(), 0o600)?;
        Ok(path)
    }
}

fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(params)
}

fn serving_params(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let usual = [
        "localhost",
        "127.0.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut all: Vec<String> = usual.iter().map(|n| (*n).to_owned()).collect();
    all.extend(names.iter().filter(|n| !n.is_empty()).cloned());
    all.dedup();
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn key(path: &Path) -> Result<KeyPair, CertError> {
    if path.exists() {
        return Ok(KeyPair::from_pem(&read(path)?)?);
    }
    let key = KeyPair::generate()?;
    write(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn admin_token(path: &Path) -> Result<String, CertError> {
    if path.exists() {
        let text = read(path)?;
        if let Some(token) =
            text.lines().find(|l| l.contains(",system:admin,")).and_then(|l| l.split(',').next())
        {
            return Ok(token.to_owned());
        }
    }
    let bytes: [u8; 24] = rand::random();
    let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    write(
        path,
        format!("{token},system:admin,system:admin,\"system:masters\"\n").as_bytes(),
        0o600,
    )?;
    Ok(token)
}

fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(|source| CertError::File { path: path.to_owned(), source })
}

/// Writes a whole file or nothing.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertError> {
    let fail = |source| CertError::File { path: path.to_owned(), source };
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&partial).map_err(fail)?;
    io::Write::write_all(&mut file, bytes).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fs::rename(&partial, path).map_err(fail)
}
