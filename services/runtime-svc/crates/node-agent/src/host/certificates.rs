//! The serving certificate: made when there is none.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};

/// Certificate and key below `dir` (`kubelet.crt`, `kubelet.key`), self-signed for `name` and `ip` when absent.
///
/// # Errors
/// When the files cannot be made; the text names the folder.
pub fn ensure(dir: &Path, name: &str, ip: IpAddr) -> Result<(PathBuf, PathBuf), String> {
    let (cert, key) = (dir.join("kubelet.crt"), dir.join("kubelet.key"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let fail = |error: &dyn std::fmt::Display| {
        format!("cannot make a certificate in {}: {error}", dir.display())
    };
    fs::create_dir_all(dir).map_err(|e| fail(&e))?;
    let names = [name.to_owned(), ip.to_string(), "127.0.0.1".to_owned(), "localhost".to_owned()];
    let mut params = CertificateParams::new(names).map_err(|e| fail(&e))?;
    params.distinguished_name.push(DnType::CommonName, format!("{name}@flotilla"));
    let pair = KeyPair::generate().map_err(|e| fail(&e))?;
    let signed = params.self_signed(&pair).map_err(|e| fail(&e))?;
    let write = |path: &Path, text: &str, mode: u32| -> std::io::Result<()> {
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(fresh, path)
    };
    write(&key, &pair.serialize_pem(), 0o600).map_err(|e| fail(&e))?;
    write(&cert, &signed.pem(), 0o644).map_err(|e| fail(&e))?;
    Ok((cert, key))
}
