# CrowdSec's bouncer: addresses that are blocked for some time, none of a peer
# expect: direct
nft -f - <<END
table ip crowdsec {
    set crowdsec-blacklists {
        type ipv4_addr
        flags timeout
        elements = { 198.51.100.7 timeout 4h, 203.0.113.9 timeout 1d }
    }
    chain crowdsec-chain-forward {
        type filter hook forward priority filter - 10; policy accept;
        ip saddr @crowdsec-blacklists counter drop
    }
}
table ip6 crowdsec6 {
    set crowdsec6-blacklists {
        type ipv6_addr
        flags timeout
        elements = { 2001:db8::7 timeout 4h }
    }
    chain crowdsec6-chain-forward {
        type filter hook forward priority filter - 10; policy accept;
        ip6 saddr @crowdsec6-blacklists counter drop
    }
}
END
