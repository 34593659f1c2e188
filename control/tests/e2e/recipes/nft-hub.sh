# The rules of a hub, as nft(8) writes them
# expect: direct
nft -f - <<END
table inet hub {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state vmap { established : accept, related : accept }
        iifname "$IF" oifname { "$IF", "eth0" } counter accept
        iifname "eth0" oifname "$IF" tcp dport { 80, 443 } accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        iifname "$IF" oifname "eth0" masquerade
    }
}
END
