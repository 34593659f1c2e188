# Reverse-path filter in mangle
# expect: kernel
# says: rpfilter
$IPTABLES -t mangle -A PREROUTING -m rpfilter --invert -j DROP
