// Package skew_test runs the local suite, test/e2e, with the daemons of two releases:
// this tree's beside an earlier one's, and beside one to come, either way round.
// docs/version-skew.md says what is promised.
//
// The ordinary run leaves out what takes long, and what only one daemon takes part in;
// SPLITPOD_TEST_SKEW=whole runs that, too (with -timeout 30m). What an earlier release cannot pass, because
// it is newer, is in a table below, with the reason.
package skew_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/splitpod/splitpod/test/need"
)

// previous is the commit whose daemons must work with this tree's, in the place of the
// last release until there is one: TLS, rules, the advisor and images were there,
// credentials, the live view and export were not. It moves with every release, not
// before, and the table below is empty again then.
const previous = "3166b06864175d8a299066f9f14d7577b291a9df"

const root = "../../.."

var daemons = []string{"supervisor-network", "supervisor-process"}

// newer are the tests that the previous release does not pass when it is the network or
// the process daemon, by what it does not know.
var newer = map[string]map[string][]string{
	"supervisor-network": {
		"credentials": {
			"TestCanary", "TestRealClientsUseCredentialsTheyDoNotHave", "TestNewSessionsSeeNewKeys", "TestRequestsAreSignedAtTheEdge",
			"TestTokensAreFetchedAtTheEdge", "TestCredentialsListNamesNoValue", "TestCredentialsInHTTP2", "TestCredentialsInGRPC",
			"TestCredentialsInWebSockets", "TestPlaceholdersBecomeValuesWhereTheyMay", "TestPlaceholdersElsewhereAreRefused",
			"TestNothingPassesUnreadWhereCredentialsAreBound", "TestRotationReachesTheNextRequest", "TestEchoedValuesAreTakenOut",
			"TestCredentialsThatAreNotValidStartNothing", "TestCredentialsInWebSocketsOnStreams", "TestTwoAccountsSignForTheirEndpoints",
			"TestEchoesInWebSocketsAreTakenOut", "TestEchoesInOtherCodingsAreTakenOut", "TestAnIdentityBecomesATokenOnEveryRelay",
			"TestATokenIsFetchedAnewBeforeItEnds", "TestWithoutATokenNothingIsSent", "TestWhatIsDeniedShowsNoPlaceholder",
			"TestEchoesInBinariesAreCovered", "TestAnswersThatCannotBeReadAreRefused", "TestRotationUnderLoadFailsNoRequest",
			"TestAnExpiryEndsNoRequestUnderWay",
		},
		"WebSockets over HTTP/2": {"TestNodesWebSocketOverHTTP2", "TestABrowsersWebSocket", "TestAReloadEndsAWebSocketOnAStream"},
		"records as OTLP":        {"TestRecordsAreCopiedToACollector", "TestADeadCollectorCostsNothing"},
		"the live view":          {"TestTheLiveViewShowsWhatHappens"},
		"paths that no rule reads arrive as they were sent": {"TestAPathThatNoRuleReadsIsTheOrigins"},
		"answers behind whole uploads":                      {"TestARefusedUploadIsAnswered"},
		"fields of proxies end at the edge":                 {"TestFieldsOfProxiesDoNotArrive"},
		"inference routes":                                  {"TestLibrariesAskForModels", "TestModelsInASandbox", "TestInferenceRoutesThatAreNotValidStartNothing"},
		"records of SSH":                                    {"TestSSHIsRecorded"},
		"a gateway":                                         {"TestAGatewayGovernsASandbox", "TestAGatewayHearsHowTheWorkloadEnded"},
		"a ledger of what was counted":                      {"TestAnEndInOrderLosesNothing", "TestAKillBetweenTheNoteAndTheRecordIsTold"},
		"a log that nobody reads":                           {"TestAHundredThousandHostsWhileNobodyReads", "TestADaemonWhoseLogNobodyReadsEnds", "TestADaemonWhoseLogsReaderIsGoneGoesOn"},
		"uploads without a length stay in HTTP/2":           {"TestALargePushReachesCGI"},
		"metrics of what is watched":                        {"TestWhatIsWatchedIsExported", "TestADamagedFenceEndsTheSandbox"},
		"a node without watchers":                           {"TestANodeWithoutWatchersIsPolled"},
		"an explained path without a method is a GET":       {"TestPolicyExplainNamesTheRule"},
		"sockets that come back":                            {"TestRemovedSocketsComeBack"},
		"one network daemon for a run directory":            {"TestARunDirectoryIsOneSandboxs"},
	},
	"supervisor-process": {
		"sockets that come back":                         {"TestRemovedSocketsComeBack"},
		"a node without namespaces":                      {"TestANodeWithoutNamespacesSaysSo"},
		"a flood is counted once on a busy machine, too": {"TestAFloodIsCountedExactly"},
		"new sessions get the environment of now":        {"TestNewSessionsSeeNewKeys"},
		"records of SSH":                                 {"TestSSHIsRecorded"},
		"SSH that is there when the workload runs":       {"TestAGatewayGovernsASandbox"},
		"records of refused system calls":                {"TestRefusedSystemCallsAreRecorded", "TestRefusedSystemCallsAreRecordedInAUserNamespace", "TestAKernelWithoutLandlock"},
		"a ledger of what was counted":                   {"TestAnEndInOrderLosesNothing"},
		"a daemon without core files":                    {"TestEverySessionHasTheSamePosture"},
		"volumes that are updated":                       {"TestAnUpdatedVolumeIsReadByTheNextProgram"},
		"starts that initialise little":                  {"TestWhatIsStartedAgainInitialisesLittle", "TestAStartThatIsNotServedEndsAndLeavesNothing"},
		"readiness with the reason of a refusal":         {"TestAWorkloadOutlivesANetworkDaemonThatDoesNotFit"},
		"sessions that end with their channel":           {"TestSSHSessionsEndWithTheirChannel"},
		"what Java trusts":                               {"TestAJavaProgram"},
		"links that no earlier workload left":            {"TestALinkOnAVolumeGrantsNothingAfterARestart"},
		"terminals that are not passed on":               {"TestExecPassesNoTerminal"},
		"records in lines of their own":                  {"TestARecordIsALineOfItsOwn"},
		"the CA among the image's roots":                 {"TestProgramsThatReadNoVariablesTrustTheCA"},
		"a run directory that is not there":              {"TestARunDirectoryThatIsNotThereIsNamed"},
		"names for users by number":                      {"TestAUserByNumberHasAName"},
	},
}

// alone are the files of the suite in which the network daemon runs by itself.
var alone = []string{"attacks_hello", "attacks_names", "attacks_requests", "certificates", "clients_protocols", "hangup", "otlp", "reload", "rules", "stall", "standalone", "transfer"}

// long are the tests that the ordinary run leaves out, and what of theirs it still runs.
var long = map[string]string{
	"TestAttacks":                                             "a minute; bypasses, identity and sessions have tests of their own",
	"TestProgramsPeopleRunWork":                               "half a minute; the process daemon alone confines them",
	"TestTheWorkloadsOwnLimitOfProcesses":                     "15 s; a limit of the process daemon's own",
	"TestAHundredKillsOfTheNetworkDaemonLoseAndDoubleNothing": "20 s; TestNetworkDaemonKilledUnderLoad kills three times",
	"TestKillsOfTheProcessDaemonDoubleNothing":                "10 s; TestProcessDaemonKilled kills once",
	"TestAWorkloadOutlivesANetworkDaemonThatDoesNotFit":       "half a minute; it builds a third release",
	"TestLearning":                                            "10 s; TestTheAdvisorLoop crosses the contract the same way",
	"TestHTTPClients":                                         "the network daemon by itself",
	"TestVersionsOfHTTPMeet":                                  "the network daemon by itself",
	"TestPackageManagers":                                     "the network daemon by itself",
	"TestGitClonesAndPushes":                                  "the network daemon by itself",
	"TestTheLiveViewShowsWhatHappens":                         "18 s; a page of the network daemon's",
	"TestRealClientsUseCredentialsTheyDoNotHave":              "10 s of npm and pip; TestCanary carries placeholders over the contract",
}

// core are the tests that a release to come must pass, too.
var core = []string{
	"TestAllowedAndRefusedDestinations", "TestTheWorkloadSeesNothingOfTheSupervisors", "TestNetworkDaemonKilledUnderLoad",
	"TestProcessDaemonKilled", "TestStartInEitherOrder", "TestExitCodesAndSignals", "TestPolicyChangeTakesEffectWithoutRestart",
	"TestADirectConnectionIsAttributed", "TestSSHReachesOnlyTheWorkloadsLoopback",
}

// TestTheDaemonsOfTwoReleasesWorkTogether: an earlier one, or one to come, beside this
// tree's. The one to come speaks one revision more, names features that nobody knows and
// puts an unknown field into every message.
func TestTheDaemonsOfTwoReleasesWorkTogether(t *testing.T) {
	suite := newSuite(t)
	then, overlay := earlier(t), toCome(t)
	for _, daemon := range daemons {
		t.Run("an earlier "+daemon, func(t *testing.T) {
			t.Parallel()
			suite.run(t, daemon, suite.build(t, then, daemon, "earlier"), suite.without(t, daemon))
		})
		t.Run("a later "+daemon, func(t *testing.T) {
			t.Parallel()
			suite.run(t, daemon, suite.build(t, suite.root, daemon, "later", "-overlay", overlay), core)
		})
	}
}

// suite is this tree's local suite, compiled.
type suite struct {
	root, dir, binary string
	names             []string // of its tests
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	need.Root(t)
	need.NetNS(t)
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	s := &suite{root: top, dir: folder(t)}
	s.binary = s.dir + "/e2e.test"
	command(t, top, nil, "go", "test", "-c", "-o", s.binary, "./test/e2e")
	for _, daemon := range daemons { // not in bin, from which other suites run meanwhile
		s.build(t, top, daemon, "now")
	}
	s.names = regexp.MustCompile(`(?m)^Test\w+$`).FindAllString(command(t, top, nil, s.binary, "-test.list", "^Test"), -1)
	if len(s.names) < 100 {
		t.Fatalf("the suite has only %d tests", len(s.names))
	}
	return s
}

// build builds a daemon of one release.
func (s *suite) build(t *testing.T, source, daemon, version string, flags ...string) string {
	t.Helper()
	to := filepath.Join(s.dir, version, daemon)
	name := "-X github.com/splitpod/splitpod/cmd/" + daemon + "/internal/app.version=" + version
	argv := slices.Concat([]string{"go", "build", "-trimpath", "-ldflags", name, "-o", to}, flags, []string{"./cmd/" + daemon})
	command(t, source, nil, argv...)
	return to
}

// without are the tests to run with an earlier daemon.
func (s *suite) without(t *testing.T, daemon string) []string {
	t.Helper()
	left := make(map[string]string)
	for why, names := range newer[daemon] {
		for _, name := range names {
			left[name] = "newer: " + why
		}
	}
	whole := os.Getenv("SPLITPOD_TEST_SKEW") == "whole"
	if !whole {
		for name, why := range long {
			left[name] = why
		}
	}
	if !whole || daemon == "supervisor-process" {
		for _, file := range alone {
			data, err := os.ReadFile(filepath.Join(s.root, "test/e2e", file+"_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(data), -1) {
				left[m[1]] = "the network daemon by itself"
			}
		}
	}
	var run []string
	for _, name := range s.names {
		if left[name] == "" {
			run = append(run, name)
		}
		delete(left, name)
	}
	for name, why := range left {
		t.Errorf("%s is left out (%s), but there is no such test", name, why)
	}
	return run
}

// run runs tests of the suite with one daemon replaced. Each must pass: a test that was
// skipped, or is not there, is an error.
func (s *suite) run(t *testing.T, daemon, binary string, names []string) {
	t.Helper()
	var env []string
	for _, name := range daemons {
		use := filepath.Join(s.dir, "now", name)
		if name == daemon {
			use = binary
		}
		env = append(env, "SPLITPOD_TEST_BIN_"+strings.ToUpper(strings.TrimPrefix(name, "supervisor-"))+"="+use)
	}
	suite := func(names []string) (string, error) {
		return output(s.root+"/test/e2e", env, s.binary, "-test.v", "-test.count=1", "-test.timeout=20m", "-test.run", "^("+strings.Join(names, "|")+")$")
	}
	version := filepath.Base(filepath.Dir(binary))
	out, err := suite(names)
	if failed := failures(out); err != nil && len(failed) > 0 && version == "earlier" {
		// What is released is not repaired any more, where it fails once in some hundred
		// starts either: what fails twice does not work together.
		t.Logf("%v failed and are run again:\n%s", failed, out)
		var again string
		again, err = suite(failed)
		out += again
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out, "replaced by "+binary+": "+daemon+" "+version) {
		t.Errorf("the suite does not say that it used the %s %s", version, daemon)
	}
	for _, name := range names {
		if !strings.Contains(out, "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass", name)
		}
	}
	t.Logf("%d tests of %d", len(names), len(s.names))
}

// failures are the tests that failed, by what the suite said.
func failures(out string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^--- FAIL: (\w+) `).FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	return names
}

// earlier is the tree of the previous release.
func earlier(t *testing.T) string {
	t.Helper()
	need.Program(t, "git")
	dir := t.TempDir()
	if out, err := exec.Command("sh", "-c", fmt.Sprintf("git -C %s archive %s | tar -x -C %s", root, previous, dir)).CombinedOutput(); err != nil {
		t.Fatalf("the tree of %s is not here (a shallow clone has no history): %v: %s", previous, err, out)
	}
	return dir
}

// toCome is an overlay of the source that makes a release to come of it.
func toCome(t *testing.T) (path string) {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	contract := top + "/pkg/core/contract.go"
	data, err := os.ReadFile(contract)
	if err != nil {
		t.Fatal(err)
	}
	more := regexp.MustCompile(`(?m)^(\tMaxRevision = )\d+$`).ReplaceAll(data, []byte("${1}77"))
	if slices.Equal(more, data) {
		t.Fatal("the contract's revision is not where it was")
	}
	codec, err := os.ReadFile("testdata/codec.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := fmt.Appendf(nil, `{"Replace": {%q: %q, %q: %q}}`, contract, dir+"/contract.go", top+"/api/supervisor/link/codec_to_come.go", dir+"/codec.go")
	for name, text := range map[string][]byte{"contract.go": more, "codec.go": codec, "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir + "/overlay.json"
}

// folder is a temporary one that other users may enter.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func command(t *testing.T, dir string, env []string, argv ...string) string {
	t.Helper()
	out, err := output(dir, env, argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func output(dir string, env []string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%.300s: %w", strings.Join(argv, " "), err)
	}
	return string(out), err
}
