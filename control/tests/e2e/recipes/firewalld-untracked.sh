# firewalld's default, with a table beside it that keeps the kernel from tracking packets between
# peers: they are not INVALID then
# expect: direct
nft -f - <<END
table inet relay {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        iifname "$IF" ip saddr 10.77.0.0/24 ip daddr 10.77.0.0/24 notrack
        iifname "$IF" ip6 saddr fd77::/64 ip6 daddr fd77::/64 notrack
    }
}
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
        jump filter_FORWARD_ZONES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
        iifname "$IF" goto filter_FWD_trusted
    }
    chain filter_FWD_trusted {
        accept
    }
}
END
