// The live tail. It gets rows once and keeps the newest. Everything is put in as text by Vue:
// paths, methods and reasons come from strangers, so there is no v-html here and must never be.
const pad = (number, width = 2) => String(number).padStart(width, "0");

function clock(seconds) {
  const at = new Date(seconds * 1000);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

export default {
  template: `
    <div class="tail">
      <table>
        <thead>
          <tr>
            <th scope="col">Time</th><th scope="col">Method</th><th scope="col">Path</th>
            <th scope="col">Label</th><th scope="col">By</th><th scope="col">Conf.</th>
            <th scope="col">Reason</th><th scope="col">Worker</th><th scope="col">Status</th>
            <th scope="col" class="number">Decide</th><th scope="col" class="number">Total</th>
          </tr>
        </thead>
        <tbody>
          <tr v-for="row in rows" :key="row.number" @click="open(row)">
            <td class="time"><button type="button" aria-haspopup="dialog">{{ row.clock }}</button></td>
            <td class="method" :title="row.method">{{ row.method }}</td>
            <td class="path" :title="row.path"><bdi>{{ row.path }}</bdi></td>
            <td class="label"><span class="label-chip" :data-label="row.label">{{ row.label }}</span></td>
            <td class="source" :data-source="row.source">{{ row.source }}<i v-if="row.cached"> cached</i></td>
            <td class="confidence">{{ row.confidence }}</td>
            <td class="reason" :title="row.reason"><bdi>{{ row.reason }}</bdi></td>
            <td class="worker">{{ row.worker }}</td>
            <td class="status" :data-fault="row.fault">{{ row.status }}</td>
            <td class="number decide">{{ row.classify }}</td>
            <td class="number total">{{ row.total }}</td>
          </tr>
        </tbody>
      </table>
      <p v-if="rows.length === 0" class="nothing">{{ empty }}</p>
      <dialog ref="dialog" class="detail" aria-label="Decision" @click.self="close">
        <div v-if="picked" class="detail-body">
          <header>
            <span class="label-chip" :data-label="picked.label">{{ picked.label }}</span>
            <bdi class="mono">{{ picked.method }}</bdi>
            <button type="button" class="plain-button" @click="close">Close</button>
          </header>
          <dl>
            <template v-for="[name, value] in detail(picked)" :key="name">
              <dt>{{ name }}</dt><dd><bdi>{{ value }}</bdi></dd>
            </template>
          </dl>
        </div>
      </dialog>
    </div>
  `,
  props: { limit: Number, empty: String },
  data: () => ({ rows: [], picked: null }),
  methods: {
    // Rows come newest first; `replace` drops what was shown.
    push(rows, replace) {
      const added = rows.map((row) => Object.freeze({ ...row, clock: clock(row.time) }));
      this.rows = Object.freeze(added.concat(replace ? [] : this.rows).slice(0, this.limit));
    },
    detail(row) {
      return [
        ["Path", row.path],
        ["Reason", row.reason],
        ["Decided by", row.cached ? `${row.source}, out of a cache` : row.source],
        ["Confidence", row.confidence],
        ["Pool", row.pool],
        ["Worker", row.worker],
        ["Status", row.status],
        ["Time to decide", row.classify],
        ["Time in all", row.total],
        ["Came at", new Date(row.time * 1000).toISOString()],
        ["Decision id", row.id],
      ];
    },
    open(row) {
      this.picked = row;
      this.$refs.dialog.showModal();
    },
    close() {
      this.$refs.dialog.close();
    },
  },
};
