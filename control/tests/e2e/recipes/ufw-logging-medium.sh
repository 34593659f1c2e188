# ufw with more than the default of logging
# expect: kernel
# says: limit
ufw --force enable
ufw allow 51820/udp
ufw route allow in on $IF out on $IF
ufw logging medium
