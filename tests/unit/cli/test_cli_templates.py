"""Go templates, as docker 28.2.2 renders them; what is expected here was printed by it."""

from __future__ import annotations

import pytest

from lamina.cli.template import ExecutionError, SyntaxFault, Template
from lamina.cli.template.shapes import Struct, shaped

CONTAINER = shaped(
    {
        "Id": "88762c8934d7",
        "Name": "/t1",
        "State": {"Status": "running", "Running": True, "Paused": False, "Dead": False, "Pid": 7262, "ExitCode": 0},
        "HostConfig": {
            "Binds": ["vv:/x"],
            "LogConfig": {"Type": "json-file", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "PortBindings": {},
            "Init": None,
            "Devices": None,
            "Memory": 0,
            "ConsoleSize": [0, 0],
            "Dns": ["1.1.1.1"],
        },
        "Mounts": [
            {
                "Type": "volume",
                "Name": "vv",
                "Source": "/v/_data",
                "Destination": "/x",
                "Driver": "local",
                "Mode": "z",
                "RW": True,
                "Propagation": "",
            },
            {"Type": "tmpfs", "Destination": "/y", "Mode": "", "RW": True},
        ],
        "Config": {
            "Env": None,
            "Cmd": ["sleep", "1000"],
            "Labels": {"a": "b"},
            "Entrypoint": None,
            "Volumes": None,
        },
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # fields
        ("{{.Id}}", "88762c8934d7"),
        ("{{.ID}}", "88762c8934d7"),
        ("{{.HostConfig.DNS}}", "[1.1.1.1]"),
        ("{{.Config.Labels.nosuch}}", "<no value>"),
        ("{{.Config.Healthcheck}}", "<nil>"),
        ("{{.SizeRw}}", "<nil>"),
        ("{{.HostConfig.Init}}", "<nil>"),
        ("{{(index .Mounts 0).Destination}}", "/x"),
        # Go's structs, maps, lists and what is missing of each
        ("{{.Mounts}}", "[{volume vv /v/_data /x local z true } {tmpfs   /y   true }]"),
        ("{{index .Mounts 0}}", "{volume vv /v/_data /x local z true }"),
        ("{{.HostConfig.LogConfig}}", "{json-file map[]}"),
        ('{{printf "%v" .HostConfig.LogConfig}}', "{json-file map[]}"),
        ("{{.HostConfig.RestartPolicy}}", "{no 0}"),
        ("{{.HostConfig.PortBindings}}", "map[]"),
        ("{{.HostConfig.Devices}}", "[]"),
        ("{{.HostConfig.ConsoleSize}}", "[0 0]"),
        ("{{.Config.Labels}}", "map[a:b]"),
        ("{{.Config.Volumes}}", "map[]"),
        ("{{.Config.Env}}", "[]"),
        ("{{.Config.Entrypoint}}", "[]"),
        ("{{.Config.Cmd}}", "[sleep 1000]"),
        # JSON
        ("{{json .Config.Labels}}", '{"a":"b"}'),
        ("{{json .HostConfig.RestartPolicy}}", '{"Name":"no","MaximumRetryCount":0}'),
        ("{{json .Config.Healthcheck}}", "null"),
        ('{{json "<é>"}}', '"<é>"'),
        # text is not touched
        ("a\\tb", "a\\tb"),
        ('{{/* c */}}x{{- " y " -}} z', "x y z"),
        ("a  {{- .Name -}}  b", "a/t1b"),
        # constants
        ('{{1.5}} {{0x10}} {{true}} {{`raw`}} {{"\\u00e9\\t"}}', "1.5 16 true raw é\t"),
        ("{{'a'}}", "97"),
        ('{{"}}"}}', "}}"),
        # actions
        ("{{if and .State.Running (not .State.Paused)}}yes{{else if .State.Dead}}dead{{end}}", "yes"),
        ("{{if .State.Paused}}1{{else if .State.Dead}}2{{else}}3{{end}}", "3"),
        ("{{with $x := .Name}}{{$x}}{{.}}{{end}}", "/t1/t1"),
        ("{{with .Config.Env}}some{{else}}none{{end}}", "none"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}", "a=b"),
        ("{{range $i, $v := .Config.Cmd}}{{$i}}{{$v}};{{end}}", "0sleep;11000;"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Cmd}}{{if eq . `sleep`}}{{continue}}{{end}}{{.}}{{break}}{{end}}", "1000"),
        ("{{range 3}}x{{end}}", "xxx"),
        ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
        ("{{$x := 1}}{{range .Config.Cmd}}{{$x = .}}{{end}}{{$x}}", "1000"),
        ("{{range .Mounts}}{{$.Name}}{{end}}", "/t1/t1"),
        ('{{define "T"}}[{{.}}]{{end}}{{template "T" .Name}}', "[/t1]"),
        ('{{block "B" .Name}}{{.}}{{end}}', "/t1"),
        # functions
        ('{{"a" | printf "%s-%s" "b"}}', "b-a"),
        ('{{printf "%-20s|%5d|%q|%v" .Name 5 "a" .Config.Cmd}}', '/t1                 |    5|"a"|[sleep 1000]'),
        ('{{printf "%x|%t|%.2f|%05d|%%|%s" 255 true 1.5 42}}', "ff|true|1.50|00042|%|%!s(MISSING)"),
        ('{{printf "%d" "a"}}', "%!d(string=a)"),
        ('{{printf "x" 1}}', "x%!(EXTRA int=1)"),
        ('{{println 1 2 "a" "b" 3}}', "1 2 a b 3\n"),
        ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
        ("{{.State.Pid | printf `%d`}}", "7262"),
        ("{{len .Mounts}}{{len .Config.Env}}", "20"),
        ("{{slice .Id 0 3}}", "887"),
        ("{{truncate .Id 5}}", "88762"),
        ('{{split .Name "/"}}', "[ t1]"),
        ('{{join .Config.Cmd ","}}', "sleep,1000"),
        ('{{title "ab cd"}} {{lower "AB"}}{{upper "ab"}}', "Ab Cd abAB"),
        ('{{pad "x" 2 3}}|', "  x   |"),
        ('{{html "<a>"}} {{js "<a>\\""}} {{urlquery "a b/"}}', '&lt;a&gt; \\u003Ca\\u003E\\" a+b%2F'),
        ('{{eq .State.ExitCode 0}} {{lt 1 2}} {{ge "b" "a"}} {{ne 1 1}}', "true true true false"),
        ("{{or .Config.Env 7}} {{and 0 .Nosuch}}", "7 0"),
    ],
)
def test_a_template_renders_as_docker_s(text: str, expected: str) -> None:
    assert Template(text).render(CONTAINER) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.x}}", '1:2: executing "" at <.x>: map has no entry for key "x"'),
        ("{{.Config.x}}", '1:9: executing "" at <.Config.x>: map has no entry for key "x"'),
        ("a\n {{.x}}", '2:3: executing "" at <.x>: map has no entry for key "x"'),
        (
            "{{.State.Running.x}}",
            '1:8: executing "" at <.State.Running.x>: can\'t evaluate field x in type interface {}',
        ),
        (
            "{{index .Mounts 7}}",
            '1:2: executing "" at <index .Mounts 7>: error calling index: index out of range: 7',
        ),
        ("{{nil}}", '1:2: executing "" at <nil>: nil is not a command'),
    ],
)
def test_what_is_not_there_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ExecutionError) as caught:
        Template(text).render(CONTAINER)
    assert str(caught.value) == f"template: :{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.x", "unclosed action"),
        ("{{foo .x}}", 'function "foo" not defined'),
        ("{{.Id | foo}}", 'function "foo" not defined'),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{}}", "missing value for command"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if .Id}}", "unexpected EOF"),
        ('{{"unterminated}}', "unterminated quoted string"),
    ],
)
def test_a_malformed_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(SyntaxFault) as caught:
        Template(text, "version")
    assert str(caught.value) == f"template: version:1: {message}"


def test_a_row_s_methods_are_called_and_are_no_part_of_its_json() -> None:
    row = Struct({"Names": "n", "Label": lambda name: f"<{name}>"})
    assert Template('{{.Label "x"}} {{json .}}').render(row) == '<x> {"Names":"n"}'


def test_a_header_is_not_changed_by_functions() -> None:
    assert Template("{{.ID | upper}} {{json .Names}}").render({"ID": "Id", "Names": "N"}, is_header=True) == "Id N"
