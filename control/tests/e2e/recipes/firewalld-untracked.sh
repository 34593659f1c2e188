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
END
. "$RECIPES/firewalld.sh"
