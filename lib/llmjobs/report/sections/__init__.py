"""The chapters of the report that are about questions and answers; a feature has its own chapter in its folder."""
