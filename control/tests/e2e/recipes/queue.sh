# An intrusion detection that is not running: packets pass, and would not if it were
# expect: kernel
# says: may apply NFQUEUE
$IPTABLES -A FORWARD -i $IF -j NFQUEUE --queue-num 1 --queue-bypass
