# Ports that nobody may reach, by nft(8)
# expect: direct, but tcp 7 by the kernel
# says: may apply log
nft -f - <<END
table inet hub {
    set closed { type inet_service; flags interval; elements = { 1-19, 135-139, 445 } }
    chain forward {
        type filter hook forward priority filter; policy accept;
        iifname "$IF" meta l4proto tcp th dport @closed log prefix "closed "
        iifname "$IF" accept
    }
}
END
