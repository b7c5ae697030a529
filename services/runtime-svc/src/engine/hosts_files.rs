//! The text of the files a pod shows its containers below /etc.

use flotilla_proto::cri::runtime::v1 as cri;

use super::error::{Error, Result};

/// resolv.conf of a DNS configuration; `None` when it is empty, so that the host's is used.
///
/// # Errors
/// When there are more search domains than resolvers read, or a value would start a line of its own.
pub fn resolv_conf(dns: Option<&cri::DnsConfig>) -> Result<Option<String>> {
    const MAX_SEARCHES: usize = 32;
    let Some(dns) = dns else { return Ok(None) };
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return Ok(None);
    }
    if dns.searches.len() > MAX_SEARCHES {
        return Err(Error::Invalid(format!(
            "DNSOption.Searches has more than {MAX_SEARCHES} domains"
        )));
    }
    let all = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    if let Some(bad) = all.into_iter().find(|text| text.contains(|c: char| c.is_control())) {
        return Err(Error::Invalid(format!("DNS setting {bad:?} holds a control character")));
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(Some(text))
}

/// /etc/hosts of a pod with its own address.
pub fn hosts(ip: &str, hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n{ip}\t{hostname}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_all_parts() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut dns = cri::DnsConfig {
            servers: list(&["10.96.0.10", "8.8.8.8"]),
            searches: list(&["a.svc", "svc"]),
            options: list(&["ndots:5"]),
        };
        let want = "search a.svc svc\nnameserver 10.96.0.10\nnameserver 8.8.8.8\noptions ndots:5\n";
        assert_eq!(resolv_conf(Some(&dns)).unwrap().as_deref(), Some(want));
        assert_eq!(resolv_conf(Some(&cri::DnsConfig::default())).unwrap(), None);
        dns.servers.push("1.1.1.1\noptions x".to_owned());
        assert!(resolv_conf(Some(&dns)).is_err());
    }
}
