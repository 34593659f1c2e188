# Clamp of the MSS: segments with SYN by the kernel, and all others direct
# expect: direct, but SYN by the kernel
# says: TCP SYN by the kernel
$IPTABLES -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000
$IPTABLES -A FORWARD -i $IF -j ACCEPT
