//! Whether VMs' packets get where they should.

use super::Finding;
use crate::service::Service;
use std::{fs, path::Path};

/// Which addresses VMs have, and whether anybody else uses them.
pub async fn addresses(service: &Service) -> Finding {
    let subnet = service.subnet();
    match service.host.list_networks().await {
        Ok((used, _)) => match subnet.conflict(&used) {
            None => Finding::ok(format!("{subnet}: nobody else uses these addresses")),
            Some(conflict) => Finding::error(
                conflict.to_string(),
                "disconnect that network, or set `subnet` in the section [network] of the configuration, delete the VMs and restart bangerd",
            ),
        },
        Err(error) => Finding::unknown(error.to_string()),
    }
}

/// Whether somebody else's rules drop what VMs send.
pub async fn firewalls(service: &Service) -> Finding {
    if !Path::new(NFT).exists() {
        return Finding::error(
            format!("there is no {NFT}, which sets the rules of the VMs' packets"),
            "install nftables (the package nftables)",
        );
    }
    let firewalls = match service.host.list_networks().await {
        Ok((_, firewalls)) => firewalls,
        Err(error) => return Finding::unknown(error.to_string()),
    };
    let in_the_way: Vec<_> = firewalls.iter().filter_map(|one| Some((one, one.remedy()?))).collect();
    if in_the_way.is_empty() {
        let there: Vec<String> = firewalls.iter().map(ToString::to_string).collect();
        return Finding::ok(match there.is_empty() {
            true => "there are none".to_owned(),
            false => there.join("; "),
        });
    }
    let (found, remedies): (Vec<String>, Vec<String>) =
        in_the_way.into_iter().map(|(one, remedy)| (one.to_string(), remedy)).unzip();
    Finding::warning(found.join("; "), remedies.join("; "))
}

const NFT: &str = "/usr/sbin/nft";

/// Whether the host routes by itself.
pub fn forwarding() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(text) if text.trim() == "1" => Finding::ok("this host routes IPv4 by itself"),
        Ok(_) => Finding::ok(
            "this host does not route: what a VM with `nat` needs is switched on while it runs, for VMs alone",
        ),
        Err(error) => Finding::unknown(format!("/proc/sys/net/ipv4/ip_forward: {error}")),
    }
}
