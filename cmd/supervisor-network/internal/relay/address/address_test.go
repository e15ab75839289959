package address_test

import (
	"net/netip"
	"testing"

	"github.com/splitpod/splitpod/cmd/supervisor-network/internal/relay/address"
)

// Each special block's first and last address, and the neighbours just outside.
func TestClassesAtTheEdgesOfEveryBlock(t *testing.T) {
	const bl, in, pu = address.Blocked, address.Internal, address.Public
	for _, tc := range []struct {
		addr string
		want address.Class
	}{
		{"0.0.0.0", bl}, {"0.255.255.255", bl}, {"1.0.0.0", pu},
		{"9.255.255.255", pu}, {"10.0.0.0", in}, {"10.255.255.255", in}, {"11.0.0.0", pu},
		{"100.63.255.255", pu}, {"100.64.0.0", in}, {"100.127.255.255", in}, {"100.128.0.0", pu}, {"100.100.100.200", bl}, {"100.100.100.199", in},
		{"126.255.255.255", pu}, {"127.0.0.0", bl}, {"127.255.255.255", bl}, {"128.0.0.0", pu},
		{"169.253.255.255", pu}, {"169.254.0.0", bl}, {"169.254.169.254", bl}, {"169.254.255.255", bl}, {"169.255.0.0", pu},
		{"168.63.129.15", pu}, {"168.63.129.16", bl}, {"168.63.129.17", pu},
		{"172.15.255.255", pu}, {"172.16.0.0", in}, {"172.31.255.255", in}, {"172.32.0.0", pu},
		{"191.255.255.255", pu}, {"192.0.0.0", in}, {"192.0.0.192", bl}, {"192.0.0.255", in}, {"192.0.1.0", pu},
		{"192.0.2.0", in}, {"192.0.2.255", in}, {"192.0.3.0", pu}, {"192.167.255.255", pu}, {"192.168.0.0", in}, {"192.168.255.255", in}, {"192.169.0.0", pu},
		{"198.17.255.255", pu}, {"198.18.0.0", in}, {"198.19.255.255", in}, {"198.20.0.0", pu}, {"198.51.100.0", in}, {"203.0.113.255", in},
		{"223.255.255.255", pu}, {"224.0.0.0", bl}, {"239.255.255.255", bl}, {"240.0.0.0", bl}, {"255.255.255.255", bl},
		{"8.8.8.8", pu},

		{"::", bl}, {"::1", bl}, {"::2", bl}, {"::7f00:1", bl}, {"::a9fe:a9fe", bl}, {"::808:808", in},
		{"::ffff:127.0.0.1", bl}, {"::ffff:10.0.0.1", in}, {"::ffff:8.8.8.8", pu},
		{"64:ff9b::a9fe:a9fe", bl}, {"64:ff9b::7f00:1", bl}, {"64:ff9b::a00:1", in}, {"64:ff9b::808:808", in}, {"64:ff9b:1::a9fe:a9fe", bl},
		{"2002:a9fe:a9fe::", bl}, {"2002:7f00:1::1", bl}, {"2002:808:808::1", in},
		{"2001::5601:5601", bl}, {"2001:0:1:2:3:4:f7f7:f7f7", in},
		{"2001:4860:4860::8888", pu}, {"2001:db8::1", in}, {"2001:db7:ffff::", pu}, {"2001:db9::", pu},
		{"fe7f:ffff::", bl}, {"fe80::1", bl}, {"febf:ffff::", bl}, {"fec0::1", bl}, {"ff02::1", bl},
		{"fc00::1", in}, {"fdff:ffff::", in}, {"fd00:ec1:ffff::", in}, {"fd00:ec2::23", bl}, {"fd00:ec2::254", bl}, {"fd00:ec3::", in}, {"fd20:ce::254", bl}, {"fd20:ce::253", in},
		{"fd00:c1::a9fe:a9fe", bl}, {"fd00:c1::a9fe:a9ff", in}, {"fd00:42::42", bl}, {"fd00:42::43", in}, {"fd00:a9fe:a9fe::1", bl}, {"fd00:a9fe:a9fe::2", in}, {"fd00:100::100:200", bl}, {"fd00:100::100:201", in},
		{"100::1", bl}, {"1000::1", bl}, {"2000::1", pu}, {"3ffe:ffff::", pu}, {"3fff::1", in}, {"4000::1", bl},
	} {
		if got, why := address.Classify(netip.MustParseAddr(tc.addr)); got != tc.want {
			t.Errorf("Classify(%s) = %d (%s), want %d", tc.addr, got, why, tc.want)
		}
	}
}

func TestAddressesWithAZoneAndNoAddressAreRefused(t *testing.T) {
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("2001:4860::1%1")} {
		if got, _ := address.Classify(a); got != address.Blocked {
			t.Errorf("Classify(%s) = %d", a, got)
		}
	}
}

func TestControlPlanePorts(t *testing.T) {
	for _, p := range []uint16{2379, 2380, 6443, 10250, 10255} {
		if !address.ControlPlanePort(p) {
			t.Errorf("port %d is not refused", p)
		}
	}
	for _, p := range []uint16{443, 2378, 2381, 6442, 6444, 10249, 10251, 10254, 10256} {
		if address.ControlPlanePort(p) {
			t.Errorf("port %d is refused", p)
		}
	}
}

// FuzzClassify: whatever form an IPv4 address comes in, it is never better than
// the address itself.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "169.254.169.254", "10.1.2.3", "8.8.8.8", "224.0.0.1"} {
		a := netip.MustParseAddr(s).As4()
		f.Add(a[:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) != 4 {
			return
		}
		v4 := [4]byte(raw)
		plain, _ := address.Classify(netip.AddrFrom4(v4))
		forms := map[string][16]byte{
			"mapped":     netip.AddrFrom4(v4).As16(),
			"compatible": {12: v4[0], v4[1], v4[2], v4[3]},
			"nat64":      {0, 0x64, 0xff, 0x9b, 12: v4[0], v4[1], v4[2], v4[3]},
			"6to4":       {0x20, 0x02, v4[0], v4[1], v4[2], v4[3]},
			"teredo":     {0x20, 0x01, 12: ^v4[0], ^v4[1], ^v4[2], ^v4[3]},
		}
		for name, form := range forms {
			got, _ := address.Classify(netip.AddrFrom16(form))
			if got > plain || name != "mapped" && got == address.Public {
				t.Errorf("%s form of %v is class %d, the address itself %d", name, v4, got, plain)
			}
		}
	})
}
