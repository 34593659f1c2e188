# A named counter
# expect: kernel
# says: is not understood
nft -f - <<END
table inet hub {
    counter of_peers { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "$IF" counter name of_peers accept
    }
}
END
