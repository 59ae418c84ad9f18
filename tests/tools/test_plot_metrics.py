import json


def test_a_curve_is_written_once(load_tool, tmp_path, capsys):
    main = load_tool("plot_metrics").main
    assert main([str(tmp_path)]) == 1
    assert "metrics.json does not exist" in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 1, "total_loss": 2.0}))
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "curve.png").is_file()
    assert main([str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([str(tmp_path), "--output", str(tmp_path / "other.png")]) == 0
