// A chart over time that keeps its points in the browser: the server sends each point once.
import { echarts } from "nicegui-echart";

const UNITS = {
  rate: (value) => `${+value.toFixed(value >= 100 ? 0 : 1)}`,
  seconds: (value) => (value >= 1 ? `${+value.toPrecision(3)} s` : `${+(value * 1000).toPrecision(3)} ms`),
};

export default {
  template: `<div class="live-chart" role="img"></div>`,
  props: {
    series: Array, // {name, color: a CSS variable, dashed, detail}
    unit: String, // a key of UNITS
    stacked: Boolean,
    spanSeconds: Number,
    limit: Number,
  },
  mounted() {
    this.points = [];
    this.chart = echarts.init(this.$el);
    this.sizes = new ResizeObserver(() => this.chart.resize());
    this.sizes.observe(this.$el);
    this.themes = new MutationObserver(() => this.chart.setOption(this.frame()));
    this.themes.observe(document.body, { attributeFilter: ["class"] });
    this.chart.setOption(this.frame());
  },
  beforeUnmount() {
    this.sizes.disconnect();
    this.themes.disconnect();
    this.chart.dispose();
  },
  methods: {
    // Points are [unix seconds, value of each series ...]; null is a gap.
    push(points) {
      this.points = this.points.concat(points).slice(-this.limit);
      if (this.points.length === 0) return;
      const end = this.points[this.points.length - 1][0] * 1000;
      this.chart.setOption({
        xAxis: { min: end - this.spanSeconds * 1000, max: end },
        series: this.series.map((_, index) => ({
          data: this.points.map((point) => [point[0] * 1000, point[index + 1]]),
        })),
      });
    },
    explain(marks, format) {
      const lines = marks.map((mark) => {
        const value = mark.value[1];
        const name = `${mark.seriesName} ${this.series[mark.seriesIndex].detail}`.trim();
        return `${mark.marker}${name}: ${value === null ? "no data" : format(value)}`;
      });
      return [marks[0].axisValueLabel, ...lines].join("\n");
    },
    frame() {
      const style = getComputedStyle(document.body);
      const color = (name) => style.getPropertyValue(name).trim();
      const format = UNITS[this.unit];
      const text = { color: color("--slb-dim"), fontFamily: style.fontFamily, fontSize: 11 };
      return {
        animation: false,
        textStyle: text,
        grid: { left: 8, right: 28, top: 34, bottom: 4, containLabel: true },
        legend: { top: 0, left: 0, icon: "roundRect", itemWidth: 14, itemHeight: 8, textStyle: { ...text, color: color("--slb-text") } },
        tooltip: {
          trigger: "axis",
          renderMode: "richText",
          formatter: (marks) => this.explain(marks, format),
          backgroundColor: color("--slb-panel"),
          borderColor: color("--slb-line"),
          textStyle: { color: color("--slb-text"), fontSize: 12 },
        },
        xAxis: {
          type: "time",
          axisLine: { lineStyle: { color: color("--slb-line") } },
          axisLabel: { ...text, hideOverlap: true, formatter: "{HH}:{mm}:{ss}" },
          splitLine: { show: false },
        },
        yAxis: {
          type: "value",
          min: 0,
          axisLabel: { ...text, formatter: format },
          splitLine: { lineStyle: { color: color("--slb-line"), opacity: 0.6 } },
        },
        series: this.series.map((line) => ({
          name: line.name,
          type: "line",
          stack: this.stacked ? "all" : undefined,
          areaStyle: this.stacked ? { opacity: 0.35 } : undefined,
          showSymbol: false,
          connectNulls: false,
          color: color(line.color),
          lineStyle: { width: 1.6, type: line.dashed ? [4, 3] : "solid", color: color(line.color) },
          emphasis: { disabled: true },
        })),
      };
    },
  },
};
